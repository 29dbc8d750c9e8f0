//! The numbers of a case, drawn as they are asked for: the same for a name, whatever the dtype, the
//! device and the place in memory.

use std::any::Any;
use std::cell::RefCell;

use burn::tensor::{DType, Device, Gradients, Tensor};
use recurrent_core::eval::compare::values;

use crate::common::{Random, tensor};

/// How the values of a leaf lie in memory, as seen by the operation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Layout {
    /// Row-major.
    #[default]
    Plain,
    /// The first two axes exchanged; a vector stays as it is.
    Transposed,
    /// The middle of something larger.
    Sliced,
    /// From the last row to the first.
    Flipped,
}

impl Layout {
    fn view<const D: usize>(self, leaf: Tensor<D>) -> Tensor<D> {
        match self {
            Layout::Plain => leaf,
            Layout::Transposed if D == 1 => leaf,
            Layout::Transposed => leaf.swap_dims(0, 1),
            Layout::Sliced => {
                let ranges = leaf.dims().map(|size| 1..size - 1);
                leaf.slice(ranges)
            }
            Layout::Flipped => leaf.flip([0]),
        }
    }

    /// What gives `values` in this view, itself row-major.
    fn unview<const D: usize>(self, values: Tensor<D>) -> Tensor<D> {
        let stored = match self {
            Layout::Sliced => {
                let dims = values.dims();
                let options = (&values.device(), values.dtype());
                let larger = Tensor::full(dims.map(|size| size + 2), 7.5, options);
                larger.slice_assign(dims.map(|size| 1..size + 1), values.clone())
            }
            other => other.view(values.clone()),
        };
        Tensor::from_data(stored.into_data(), (&values.device(), values.dtype()))
    }
}

/// A change of the shape of a leaf.
pub type Resize<'a> = &'a dyn Fn(&str, &mut [usize]);

/// A change of the values of a name.
pub type Alter<'a> = &'a dyn Fn(&str, &mut Vec<f64>);

type GradientOf = Box<dyn Fn(&Gradients) -> Option<Vec<f64>>>;

pub struct Leaf {
    name: String,
    tensor: Box<dyn Any>,
    gradient: GradientOf,
}

/// Tensors by name.
pub struct Leaves<'a> {
    pub device: Device,
    pub dtype: DType,
    pub seed: u64,
    pub layout: Layout,
    pub tracked: &'a dyn Fn(&str) -> bool,
    pub alter: Alter<'a>,
    pub resize: Resize<'a>,
    pub(crate) list: RefCell<Vec<Leaf>>,
}

impl<'a> Leaves<'a> {
    pub fn new(device: &Device, dtype: DType, seed: u64) -> Self {
        Self {
            device: device.clone(),
            dtype,
            seed,
            layout: Layout::Plain,
            tracked: &|_| true,
            alter: &|_, _| {},
            resize: &|_, _| {},
            list: RefCell::default(),
        }
    }

    fn random(&self, name: &str) -> Random {
        let hash = name.bytes().fold(self.seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Random::new(hash)
    }

    /// A constant: `draw`n for the name.
    pub fn constant<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        draw: impl FnOnce(&mut Random, usize) -> Vec<f64>,
    ) -> Tensor<D> {
        let mut list = draw(&mut self.random(name), shape.iter().product());
        // The same numbers in both dtypes.
        list.iter_mut().for_each(|v| *v = f64::from(*v as f32));
        (self.alter)(name, &mut list);
        tensor(&list, shape, &self.device, self.dtype)
    }

    /// A leaf of the graph, its values in `middle` ± `bound`.
    pub fn leaf<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        middle: f64,
        bound: f64,
    ) -> Tensor<D> {
        if let Some(leaf) = self.list.borrow().iter().find(|leaf| leaf.name == name) {
            let tensor = leaf.tensor.downcast_ref::<Tensor<D>>().expect("this rank");
            return self.layout.view(tensor.clone());
        }
        let mut shape = shape;
        (self.resize)(name, &mut shape);
        let values_of = |random: &mut Random, count| {
            let list = random.values(count, bound);
            list.into_iter().map(|v| middle + v).collect()
        };
        let layout = self.layout;
        let mut leaf = layout.unview(self.constant(name, shape, values_of));
        if (self.tracked)(name) {
            leaf = leaf.require_grad();
        }
        let source = leaf.clone();
        self.list.borrow_mut().push(Leaf {
            name: name.into(),
            tensor: Box::new(leaf.clone()),
            gradient: Box::new(move |grads| {
                let grad = source.grad(grads)?;
                Some(values(&layout.view(grad)))
            }),
        });
        layout.view(leaf)
    }

    /// The names of the leaves so far.
    pub fn names(&self) -> Vec<String> {
        let list = self.list.borrow();
        list.iter().map(|leaf| leaf.name.clone()).collect()
    }

    /// Every leaf's gradient by name; `None` where none arrived.
    pub fn gradients(&self, grads: &Gradients) -> Vec<(String, Option<Vec<f64>>)> {
        let list = self.list.borrow();
        list.iter()
            .map(|leaf| (leaf.name.clone(), (leaf.gradient)(grads)))
            .collect()
    }
}
