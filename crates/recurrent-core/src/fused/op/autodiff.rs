//! Kernels as nodes of the autodiff graph.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use burn::backend::Autodiff;
use burn::backend::TensorMetadata;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind, unary};
use burn::backend::tensor::FloatTensor;
use burn::tensor::Shape;

use super::{KernelBackend, Problem, RunKernel, TensorList};

impl<B: RunKernel + KernelBackend, C: CheckpointStrategy> KernelBackend for Autodiff<B, C> {
    fn run_kernel(tensors: TensorList<Self>, problem: Arc<Problem>) -> FloatTensor<Self> {
        let tensors = tensors.0;
        // The number of parents is a const parameter of the node's type.
        macro_rules! by_parents {
            ($($N:literal)*) => {
                match tensors.len() {
                    $($N => record::<B, C, $N>(tensors, problem),)*
                    parents => unreachable!("a kernel of {parents} tensors"),
                }
            };
        }
        by_parents!(
            1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
            33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48
        )
    }

    fn piece(flat: FloatTensor<Self>, start: usize, shape: Shape) -> FloatTensor<Self> {
        let (flat, guard) = flat.into_parts();
        let len = flat.shape().num_elements();
        let piece = B::piece(flat, start, shape);
        match Piece::<B>(PhantomData)
            .prepare::<C>([guard])
            .compute_bound()
            .stateful()
        {
            OpsKind::UnTracked(node) => node.finish(piece),
            OpsKind::Tracked(node) => node.finish((start, len), piece),
        }
    }

    fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        let (tensor, guard) = tensor.into_parts();
        let copied = <B as KernelBackend>::copied(tensor);
        match Copied::<B>(PhantomData)
            .prepare::<C>([guard])
            .compute_bound()
            .stateful()
        {
            OpsKind::UnTracked(node) => node.finish(copied),
            OpsKind::Tracked(node) => node.finish((), copied),
        }
    }
}

/// Runs the forward, and registers its backward if a parent is tracked.
fn record<B: RunKernel + KernelBackend, C: CheckpointStrategy, const N: usize>(
    tensors: Vec<FloatTensor<Autodiff<B, C>>>,
    problem: Arc<Problem>,
) -> FloatTensor<Autodiff<B, C>> {
    let (primitives, guards): (Vec<_>, Vec<NodeGuard>) = tensors
        .into_iter()
        .map(|tensor| tensor.into_parts())
        .unzip();
    let guards: [NodeGuard; N] = guards.try_into().expect("as many guards as tensors");
    let node = Node::<B>(PhantomData).prepare::<C>(guards);
    match node.compute_bound().stateful() {
        OpsKind::UnTracked(node) => node.finish(B::run_kernel(TensorList(primitives), problem)),
        OpsKind::Tracked(node) => {
            let tensors: Vec<_> = primitives.into_iter().map(B::prepare).collect();
            let (output, saved) = B::forward(&problem, &tensors, true);
            let state = Recorded {
                tensors,
                saved: saved.expect("a kernel saves what its backward needs"),
                output: output.clone(),
                problem,
            };
            node.finish(state, output)
        }
    }
}

/// The data that the node stores for its backward.
struct Recorded<B: RunKernel> {
    tensors: Vec<FloatTensor<B>>,
    saved: B::Saved,
    output: FloatTensor<B>,
    problem: Arc<Problem>,
}

impl<B: RunKernel> Clone for Recorded<B> {
    fn clone(&self) -> Self {
        Self {
            tensors: self.tensors.clone(),
            saved: self.saved.clone(),
            output: self.output.clone(),
            problem: self.problem.clone(),
        }
    }
}

impl<B: RunKernel> fmt::Debug for Recorded<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded")
            .field("problem", &self.problem)
            .finish_non_exhaustive()
    }
}

/// The derivative of a kernel.
struct Node<B>(PhantomData<B>);

impl<B> fmt::Debug for Node<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FusedSequence")
    }
}

impl<B: RunKernel + KernelBackend, const N: usize> Backward<B, N> for Node<B> {
    type State = Recorded<B>;

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = B::prepare(grads.consume::<B>(&ops.node));
        let Recorded {
            tensors,
            saved,
            output,
            problem,
        } = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let results = B::backward(&problem, &tensors, &saved, &output, grad, &wanted);
        for (parent, grad) in ops.parents.into_iter().zip(results) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                grads.register::<B>(parent.id, grad);
            }
        }
    }
}

/// The derivative of [`KernelBackend::piece`].
struct Piece<B>(PhantomData<B>);

impl<B> fmt::Debug for Piece<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Piece")
    }
}

impl<B: RunKernel> Backward<B, 1> for Piece<B> {
    /// Offset of the piece, and length of the whole tensor.
    type State = (usize, usize);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (start, len) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            B::scatter(grad, start, len)
        });
    }
}

/// The derivative of [`KernelBackend::copied`].
struct Copied<B>(PhantomData<B>);

impl<B> fmt::Debug for Copied<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Copied")
    }
}

impl<B: RunKernel> Backward<B, 1> for Copied<B> {
    type State = ();

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        unary::<B, _>(ops.parents, ops.node, grads, |grad| grad);
    }
}
