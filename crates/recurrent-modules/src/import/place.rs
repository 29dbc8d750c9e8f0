//! Reading and replacing parameters of a module by path.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor};

use super::error::ImportError;

/// The value of one parameter as a matrix (a vector is one row), with Burn's identity of it if the
/// source has one.
pub(crate) type Placed = (Tensor<2>, Option<u64>);

/// Replaces the value of each parameter; the module keeps its structure and settings.
///
/// # Arguments
/// * `value` - the value of a path, on the given device; `None` where the source has none
///
/// # Errors
/// The first of `value`; also if a parameter gets no value, or one of another shape.
pub(crate) fn place<M: Module>(
    module: M,
    value: impl FnMut(&str, &Device) -> Result<Option<Placed>, ImportError>,
) -> Result<M, ImportError> {
    let mut placer = Placer {
        path: Vec::new(),
        value,
        error: None,
    };
    let module = module.map(&mut placer);
    match placer.error {
        Some(error) => Err(error),
        None => Ok(module),
    }
}

struct Placer<F> {
    path: Vec<String>,
    value: F,
    error: Option<ImportError>,
}

impl<F> Placer<F>
where
    F: FnMut(&str, &Device) -> Result<Option<Placed>, ImportError>,
{
    fn take<const D: usize>(
        &mut self,
        param: &Param<Tensor<D>>,
    ) -> Result<(Tensor<D>, ParamId), ImportError> {
        let path = self.path.join(".");
        // Does not read the value, which would draw initial weights only to drop them.
        let (device, shape) = (param.lazy_device(), param.lazy_shape());
        let value = (self.value)(&path, &device)?;
        let Some((tensor, id)) = value else {
            return Err(ImportError::unsupported(format!(
                "the layout does not store the module's parameter `{path}`"
            )));
        };
        let elements = tensor.dims().iter().product::<usize>();
        if elements != shape.num_elements() {
            return Err(ImportError::Shape {
                name: path,
                got: tensor.dims().to_vec(),
                expected: shape.to_vec(),
            });
        }
        let tensor = tensor.reshape::<D, _>(shape).detach();
        Ok((tensor, id.map_or(param.id, ParamId::from)))
    }
}

impl<F> ModuleMapper for Placer<F>
where
    F: FnMut(&str, &Device) -> Result<Option<Placed>, ImportError>,
{
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        match self.take(&param) {
            Ok((tensor, id)) => param.transform_for_load(tensor, id),
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

/// All parameters of a module as matrices (a vector is one row), cut off from any graph.
pub(crate) fn parameters<M: Module>(module: &M) -> BTreeMap<String, Tensor<2>> {
    let mut taker = Taker::default();
    module.visit(&mut taker);
    taker.values
}

#[derive(Default)]
struct Taker {
    path: Vec<String>,
    values: BTreeMap<String, Tensor<2>>,
}

impl ModuleVisitor for Taker {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val().detach();
        let dims = tensor.dims();
        let columns = dims[D - 1];
        let rows = dims[..D - 1].iter().product();
        let matrix = tensor.reshape([rows, columns]);
        self.values.insert(self.path.join("."), matrix);
    }
}

/// Path and shape of each parameter, without making a value.
pub(crate) fn shapes<M: Module>(module: &M) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = Shapes::default();
    module.visit(&mut shapes);
    shapes.shapes
}

#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl ModuleVisitor for Shapes {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.lazy_shape().to_vec();
        self.shapes.insert(self.path.join("."), shape);
    }
}
