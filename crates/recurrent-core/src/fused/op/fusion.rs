//! Kernels behind Burn's fusion: a call is one entry in its queue, run when its turn comes.
//!
//! Burn's fusion is a feature that any crate of a program may turn on; this is written for
//! `Fusion<B>` whether it is on or not, so that it does not matter who asks for it.

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

/// Queues an operation on tensors that gives tensors of the given shapes.
///
/// # Arguments
/// * `id` - its name, for whoever looks at the queue
/// * `run` - from the inner backend's tensors to theirs
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
    B: FusionBackend + RunKernel<Kept = Vec<FloatTensor<B>>>,
{
    type Kept = Vec<FloatTensor<Self>>;

    /// The inner backend prepares them, when their values are there.
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
        keep: bool,
    ) -> (FloatTensor<Self>, Option<Self::Kept>) {
        let mut shapes = vec![Shape::new([problem.output_len()])];
        if keep {
            shapes.extend(sequence(problem).kept().into_iter().map(Shape::new));
        }
        let problem = problem.clone();
        let results = queue::<B>(
            "sequence_forward",
            tensors.to_vec(),
            &shapes,
            move |tensors| {
                let tensors: Vec<_> = tensors.into_iter().map(B::prepare).collect();
                let (output, kept) = B::forward(&problem, &tensors, keep);
                let mut results = vec![output];
                results.extend(kept.into_iter().flatten());
                results
            },
        );
        let mut results = results.into_iter();
        let output = results.next().expect("the output");
        (output, keep.then(|| results.collect()))
    }

    fn backward(
        problem: &Arc<Problem>,
        tensors: &[FloatTensor<Self>],
        kept: &Self::Kept,
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
        all.extend(kept.iter().cloned());
        all.push(output.clone());
        all.push(grad);
        let (inner, asked) = (problem.clone(), wanted.clone());
        let results = queue::<B>("sequence_backward", all, &shapes, move |mut all| {
            let grad = B::prepare(all.pop().expect("the gradient"));
            let output = all.pop().expect("the output");
            let kept = all.split_off(count);
            let tensors: Vec<_> = all.into_iter().map(B::prepare).collect();
            let grads = B::backward(&inner, &tensors, &kept, &output, grad, &asked);
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
    B: FusionBackend + KernelBackend + RunKernel<Kept = Vec<FloatTensor<B>>>,
{
    fn run_kernel(tensors: TensorList<Self>, problem: Arc<Problem>) -> FloatTensor<Self> {
        run_once::<Self>(tensors, &problem)
    }

    fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as RunKernel>::copied(tensor)
    }
}
