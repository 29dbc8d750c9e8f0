//! Reading a golden file: metadata, constants, and leaves of the graph.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use recurrent_core::eval::compare::values;
use recurrent_modules::cells::Cell;
use recurrent_modules::import::{Layout, Mapping, Piece};
use recurrent_modules::{Stack, Strategy};
use safetensors::SafeTensors;
use serde_json::Value;

/// Named outputs, flattened.
pub type Outputs = Vec<(String, Tensor<1>)>;

struct Entry {
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// One case.
pub struct Golden {
    pub variant: String,
    pub device: Device,
    strategy: Strategy,
    /// Whether a kernel can run the module, once one has been started.
    has_kernel: std::cell::Cell<bool>,
    options: Value,
    /// Options that were asked for.
    read: RefCell<BTreeSet<String>>,
    /// Masks that were applied.
    masks: RefCell<BTreeSet<String>>,
    entries: BTreeMap<String, Entry>,
    /// Flat tensors that require a gradient, by name.
    leaves: RefCell<BTreeMap<String, Tensor<1>>>,
}

fn metadata(bytes: &[u8]) -> Result<std::collections::HashMap<String, String>, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    header
        .metadata()
        .clone()
        .ok_or_else(|| "no metadata".to_string())
}

impl Golden {
    pub fn open(path: &Path, device: &Device, strategy: Strategy) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let mut metadata = metadata(&bytes)?;
        let mut take = |key: &str| {
            metadata
                .remove(key)
                .ok_or_else(|| format!("metadata has no `{key}`"))
        };
        let variant = take("variant")?;
        let options = serde_json::from_str(&take("options")?).map_err(|e| e.to_string())?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
        let mut entries = BTreeMap::new();
        for (name, view) in file.tensors() {
            if view.dtype() != safetensors::Dtype::F32 {
                return Err(format!("`{name}` is {:?}, expected F32", view.dtype()));
            }
            let data = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            let shape = view.shape().to_vec();
            entries.insert(name, Entry { shape, data });
        }
        Ok(Self {
            variant,
            device: device.clone(),
            strategy,
            has_kernel: std::cell::Cell::new(false),
            options,
            read: RefCell::default(),
            masks: RefCell::default(),
            entries,
            leaves: RefCell::default(),
        })
    }

    /// To be called with a filled module before it runs: sets the strategy.
    pub fn start<C: Cell>(&self, module: &mut Stack<C>) {
        module.strategy = self.strategy;
        let reason = module.unfused(&self.device, DType::F32);
        self.has_kernel.set(reason.is_none());
    }

    /// Whether [`start`](Self::start) was called with a module that has a kernel.
    pub fn has_kernel(&self) -> bool {
        self.has_kernel.get()
    }

    pub fn option(&self, key: &str) -> &Value {
        self.read.borrow_mut().insert(key.to_string());
        &self.options[key]
    }

    pub fn usize(&self, key: &str) -> Option<usize> {
        self.option(key).as_u64().map(|n| n as usize)
    }

    /// False where the option is absent.
    pub fn flag(&self, key: &str) -> bool {
        self.option(key).as_bool().unwrap_or(false)
    }

    pub fn f64(&self, key: &str) -> Option<f64> {
        self.option(key).as_f64()
    }

    /// A mask of a file in training as a multiplier; `None` in evaluation, and where the file has
    /// none.
    ///
    /// # Arguments
    /// * `prob` - the option with the probability of dropping a unit
    pub fn mask<const D: usize>(
        &self,
        name: &str,
        prob: &str,
    ) -> Result<Option<Tensor<D>>, String> {
        let prob_value = self.f64(prob);
        if !self.flag("training") || !self.has(name) {
            return Ok(None);
        }
        let prob = prob_value.ok_or_else(|| format!("`{name}` is there, `{prob}` is not"))?;
        self.masks.borrow_mut().insert(name.to_string());
        Ok(Some(self.tensor(name) / (1.0 - prob)))
    }

    /// [`mask`](Self::mask) where every file in training that drops something must have it.
    pub fn required_mask<const D: usize>(
        &self,
        name: &str,
        prob: &str,
    ) -> Result<Option<Tensor<D>>, String> {
        let mask = self.mask(name, prob)?;
        let drops = self.flag("training") && self.f64(prob).is_some_and(|prob| prob > 0.0);
        match mask {
            None if drops => Err(format!("`{prob}` is there, `{name}` is not")),
            mask => Ok(mask),
        }
    }

    /// The masks on the outputs of all layers but the last; empty where nothing is dropped.
    pub fn masks_between(&self, layers: usize) -> Result<Vec<Option<Tensor<3>>>, String> {
        // Known, though one layer has nothing to drop.
        let _ = [self.option("training"), self.option("dropout")];
        let of_layer = |layer| self.required_mask(&format!("mask.y.{layer}"), "dropout");
        (0..layers - 1).map(of_layer).collect()
    }

    /// What the file says and nothing has asked for, to be called after the case has run.
    pub fn unknown(&self) -> Vec<String> {
        // What the tensors show, or how the original made them.
        const DESCRIPTIVE: [&str; 7] = [
            "batch",
            "seq",
            "state",
            "enforce_sorted",
            "mask_rows",
            "forget_bias_init",
            "zero_grad_params",
        ];
        let read = self.read.borrow();
        let options = self.options.as_object().into_iter().flatten();
        let options = options.filter(|(key, value)| {
            !value.is_null() && !read.contains(*key) && !DESCRIPTIVE.contains(&key.as_str())
        });
        let options = options.map(|(key, value)| {
            format!(
                "option `{key}` = {value} is not known for `{}`",
                self.variant
            )
        });
        let masks = self.masks.borrow();
        let training = self.options["training"] == true;
        let unused = self.names_after("mask.").into_iter();
        let unused = unused.filter(|name| training && !masks.contains(&format!("mask.{name}")));
        let unused = unused.map(|name| format!("`mask.{name}` was not applied"));
        options.chain(unused).collect()
    }

    pub fn strings(&self, key: &str) -> Vec<String> {
        let list = self.option(key).as_array().cloned().unwrap_or_default();
        list.iter()
            .filter_map(|v| v.as_str().map(String::from))
            .collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    pub fn names_after(&self, prefix: &str) -> Vec<String> {
        self.entries
            .keys()
            .filter_map(|name| name.strip_prefix(prefix).map(String::from))
            .collect()
    }

    pub fn values(&self, name: &str) -> Option<Vec<f64>> {
        let entry = self.entries.get(name)?;
        Some(entry.data.iter().map(|&v| f64::from(v)).collect())
    }

    fn entry(&self, name: &str) -> &Entry {
        self.entries
            .get(name)
            .unwrap_or_else(|| panic!("the file has no tensor `{name}`"))
    }

    fn shape<const D: usize>(&self, name: &str) -> [usize; D] {
        let shape = &self.entry(name).shape;
        // D = 1 asks for the flat values.
        if D == 1 {
            return [shape.iter().product(); D];
        }
        // A leading axis of 1 may be left out.
        let shape = if shape.len() == D + 1 && shape[0] == 1 {
            &shape[1..]
        } else {
            shape
        };
        shape
            .try_into()
            .unwrap_or_else(|_| panic!("`{name}` has shape {shape:?}, expected {D} axes"))
    }

    /// A constant.
    pub fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let entry = self.entry(name);
        let data = TensorData::new(entry.data.clone(), [entry.data.len()]);
        Tensor::<1>::from_data(data, &self.device).reshape(self.shape::<D>(name))
    }

    /// A tensor whose gradient will be asked for.
    pub fn leaf<const D: usize>(&self, name: &str) -> Tensor<D> {
        let flat = self
            .leaves
            .borrow_mut()
            .entry(name.to_string())
            .or_insert_with(|| self.tensor::<1>(name).require_grad())
            .clone();
        flat.reshape(self.shape::<D>(name))
    }

    /// The gradient of a leaf, `None` if none arrived.
    pub fn gradient(&self, name: &str, gradients: &Gradients) -> Result<Option<Vec<f64>>, String> {
        let leaves = self.leaves.borrow();
        let leaf = leaves
            .get(name)
            .ok_or_else(|| format!("grad.{name}: the case did not use `{name}`"))?;
        Ok(leaf.grad(gradients).map(|gradient| values(&gradient)))
    }

    /// A module with the file's parameters, through the library's own table of the layout.
    ///
    /// They stay a part of the graph: the gradient of each tensor of the file arrives in the file's
    /// own layout.
    pub fn fill<M: Module, L: Layout<M>>(&self, layout: &L, module: M) -> Result<M, String> {
        let mapping = layout.mapping(&module).map_err(|error| error.to_string())?;
        let known = mapping.tensors();
        let strangers: Vec<String> = self
            .names_after("param.")
            .into_iter()
            .filter(|name| !known.contains_key(name.as_str()))
            .collect();
        if !strangers.is_empty() {
            return Err(format!("the layout does not know {strangers:?}"));
        }
        // Parameters that no computation uses have a zero gradient in the file.
        for (name, _) in &mapping.unused {
            let _ = self.leaf::<1>(&format!("param.{name}"));
        }
        let mut filler = Filler {
            golden: self,
            mapping: &mapping,
            path: vec![],
            errors: vec![],
        };
        let module = module.map(&mut filler);
        match filler.errors.is_empty() {
            true => Ok(module),
            false => Err(filler.errors.join("; ")),
        }
    }

    /// A tensor of a layout's table as a matrix.
    fn piece(&self, piece: &Piece) -> Result<Tensor<2>, String> {
        let name = format!("param.{}", piece.name);
        let entry = self.entries.get(&name);
        let shape = &entry
            .ok_or_else(|| format!("the file has no `{name}`"))?
            .shape;
        if *shape != piece.shape {
            let expected = &piece.shape;
            return Err(format!(
                "`{name}` has shape {shape:?}, expected {expected:?}"
            ));
        }
        let columns = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / columns;
        Ok(self.leaf::<1>(&name).reshape([rows, columns]))
    }

    /// Gives an option another value.
    pub fn set_option(&mut self, key: &str, value: Value) {
        self.options[key] = value;
    }

    /// Swaps two blocks of rows of a matrix.
    pub fn swap_rows(&mut self, name: &str, first: usize, second: usize, height: usize) {
        let entry = self.entries.get_mut(name).expect("a known tensor");
        let width = entry.shape[1];
        for k in 0..height * width {
            entry.data.swap(first * width + k, second * width + k);
        }
    }
}

/// Puts the parameters of a file into a module.
struct Filler<'a> {
    golden: &'a Golden,
    mapping: &'a Mapping,
    path: Vec<String>,
    errors: Vec<String>,
}

impl Filler<'_> {
    fn value<const D: usize>(&self, param: &Param<Tensor<D>>) -> Result<Tensor<D>, String> {
        let path = self.path.join(".");
        let entry = self.mapping.entries.iter().find(|e| e.param == path);
        let entry = entry.ok_or_else(|| format!("the layout has no `{path}`"))?;
        let tensor = entry.assemble(|piece| self.golden.piece(piece))?;
        Ok(tensor.reshape::<D, _>(param.lazy_shape()))
    }
}

impl ModuleMapper for Filler<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.value(&param) {
            Ok(tensor) => Param::initialized(param.id, tensor),
            Err(error) => {
                self.errors.push(error);
                param
            }
        }
    }
}

/// Adds an output in flat form, under the name the file has for it.
pub fn push<const D: usize>(outputs: &mut Outputs, name: impl Into<String>, tensor: Tensor<D>) {
    let count = tensor.dims().iter().product::<usize>();
    outputs.push((name.into(), tensor.reshape([count])));
}
