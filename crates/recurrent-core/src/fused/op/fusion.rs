//! Kernels with Burn's fusion: a call is one entry in the fusion queue, executed in queue order.
//!
//! Burn's fusion is a Cargo feature that any crate of a program may enable. This module is written for
//! `Fusion<B>` whether it is enabled or not, so it works in both cases.

use alloc::sync::Arc;
use alloc::vec::Vec;

use burn::backend::tensor::FloatTensor;
use burn::backend::{ExecutionError, TensorMetadata};
use burn::tensor::{DType, Shape};
use burn_fusion::custom::{
    CustomOpIr, HandleContainer, OperationFn, OperationIr, StreamId, TensorIr,
};
use burn_fusion::{Fusion, FusionBackend, FusionRuntime};

use super::{KernelBackend, Problem, RunKernel, TensorList, run_once};
use crate::fused::cube::sequence;

type Handles<B> =
    HandleContainer<<<B as FusionBackend>::FusionRuntime as FusionRuntime>::FusionHandle>;

/// Queues an operation on tensors that returns tensors of the given shapes.
///
/// # Arguments
/// * `id` - its name in the queue, for debugging
/// * `run` - the operation on the inner backend's tensors
fn queue<B: FusionBackend>(
    id: &str,
    tensors: Vec<FloatTensor<Fusion<B>>>,
    shapes: &[Shape],
    run: impl Fn(Vec<FloatTensor<B>>) -> Vec<FloatTensor<B>> + Send + Sync + 'static,
) -> Vec<FloatTensor<Fusion<B>>> {
    let client = tensors[0].client.clone();
    let inputs: Vec<TensorIr> = tensors.into_iter().map(|tensor| tensor.into_ir()).collect();
    let outputs: Vec<TensorIr> = shapes
        .iter()
        .map(|shape| TensorIr::uninit(client.create_empty_handle(), shape.clone(), DType::F32))
        .collect();
    let ids: Vec<_> = outputs.iter().map(|output| output.id).collect();
    let description = CustomOpIr {
        id: id.into(),
        inputs: inputs.clone(),
        outputs,
        scalars: Vec::new(),
    };
    let operation = OperationFn(
        move |handles: &mut Handles<B>| -> Result<(), ExecutionError> {
            let tensors = inputs
                .iter()
                .map(|input| handles.get_float_tensor::<B>(input))
                .collect();
            for (id, tensor) in ids.iter().zip(run(tensors)) {
                handles.register_float_tensor::<B>(id, tensor);
            }
            Ok(())
        },
    );
    client.register(
        StreamId::current(),
        OperationIr::Custom(description),
        operation,
    )
}

impl<B> RunKernel for Fusion<B>
where
    B: FusionBackend + RunKernel<Saved = Vec<FloatTensor<B>>>,
{
    type Saved = Vec<FloatTensor<Self>>;

    /// Preparation is left to the inner backend, once the values are available.
    fn prepare(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        tensor
    }

    fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        let shape = tensor.shape();
        let mut results = queue::<B>("copied", vec![tensor], &[shape], |tensors| {
            tensors.into_iter().map(<B as RunKernel>::copied).collect()
        });
        results.pop().expect("one tensor for one")
    }

    fn forward(
        problem: &Arc<Problem>,
        tensors: &[FloatTensor<Self>],
        save: bool,
    ) -> (FloatTensor<Self>, Option<Self::Saved>) {
        let mut shapes = vec![Shape::new([problem.output_len()])];
        if save {
            shapes.extend(sequence(problem).saved_shapes().into_iter().map(Shape::new));
        }
        let problem = problem.clone();
        let results = queue::<B>(
            "sequence_forward",
            tensors.to_vec(),
            &shapes,
            move |tensors| {
                let tensors: Vec<_> = tensors.into_iter().map(B::prepare).collect();
                let (output, saved) = B::forward(&problem, &tensors, save);
                let mut results = vec![output];
                results.extend(saved.into_iter().flatten());
                results
            },
        );
        let mut results = results.into_iter();
        let output = results.next().expect("the output");
        (output, save.then(|| results.collect()))
    }

    fn backward(
        problem: &Arc<Problem>,
        tensors: &[FloatTensor<Self>],
        saved: &Self::Saved,
        output: &FloatTensor<Self>,
        grad: FloatTensor<Self>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Self>>> {
        let wanted: Vec<bool> = (0..tensors.len())
            .map(|index| wanted[index] && sequence(problem).differentiable(index))
            .collect();
        let asked = tensors.iter().zip(&wanted);
        let shapes: Vec<Shape> = asked
            .filter(|(_, wanted)| **wanted)
            .map(|(tensor, _)| tensor.shape())
            .collect();
        let count = tensors.len();
        let mut all = tensors.to_vec();
        all.extend(saved.iter().cloned());
        all.push(output.clone());
        all.push(grad);
        let (inner, asked) = (problem.clone(), wanted.clone());
        let results = queue::<B>("sequence_backward", all, &shapes, move |mut all| {
            let grad = B::prepare(all.pop().expect("the gradient"));
            let output = all.pop().expect("the output");
            let saved = all.split_off(count);
            let tensors: Vec<_> = all.into_iter().map(B::prepare).collect();
            let grads = B::backward(&inner, &tensors, &saved, &output, grad, &asked);
            grads.into_iter().flatten().collect()
        });
        let mut results = results.into_iter();
        let each = wanted
            .into_iter()
            .map(|wanted| wanted.then(|| results.next().expect("a gradient of each wanted")));
        each.collect()
    }
}

impl<B> KernelBackend for Fusion<B>
where
    B: FusionBackend + KernelBackend + RunKernel<Saved = Vec<FloatTensor<B>>>,
{
    fn run_kernel(tensors: TensorList<Self>, problem: Arc<Problem>) -> FloatTensor<Self> {
        run_once::<Self>(tensors, &problem)
    }

    fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as RunKernel>::copied(tensor)
    }
}
