//! Your own cell: implement one step; layers, directions, lengths and masks then work without further code.
//!
//! The cell is the minimal gated unit (Zhou et al., arXiv:1603.09420):
//!
//! ```text
//! f = σ(x·W_f + h·R_f + b_f)
//! g = tanh(x·W_g + (f ⊙ h)·R_g + b_g)
//! h' = (1 − f) ⊙ h + f ⊙ g
//! ```
//! `cargo run --release --example custom_cell`

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::activation::{sigmoid, tanh};
use burn::tensor::{Device, Tensor};
use recurrent_modules::{
    Cell, ForwardOptions, InvalidConfig, Lengths, RecurrentDropout, Stack, StackConfig, State,
    Step, StepMasks, apply_mask,
};

/// Level 1, the state: which tensors are carried. Here h alone.
#[derive(Clone)]
struct Hidden(Tensor<2>);

impl State for Hidden {
    fn into_tensors(self) -> Vec<Tensor<2>> {
        vec![self.0]
    }

    fn from_tensors(mut tensors: Vec<Tensor<2>>) -> Self {
        assert_eq!(tensors.len(), 1, "the state is one tensor");
        Self(tensors.remove(0))
    }
}

/// Level 2, one step on plain weight tensors, for one call.
struct MguStep {
    weight_input: Tensor<2>,
    recurrent_forget: Tensor<2>,
    recurrent_candidate: Tensor<2>,
    bias: Tensor<1>,
}

impl Step for MguStep {
    type State = Hidden;

    fn d_input(&self) -> usize {
        self.weight_input.dims()[0]
    }

    fn d_hidden(&self) -> usize {
        self.recurrent_forget.dims()[0]
    }

    fn state_parts(&self) -> Vec<(&'static str, usize)> {
        vec![("hidden", self.d_hidden())]
    }

    /// Both input products, for all steps at once, outside the time loop.
    fn project(&self, input: Tensor<2>) -> Tensor<2> {
        input.matmul(self.weight_input.clone()) + self.bias.clone().unsqueeze()
    }

    fn step(&self, projected: Tensor<2>, state: Hidden, masks: &StepMasks) -> (Tensor<2>, Hidden) {
        let h = state.0;
        let [from_forget, from_candidate]: [Tensor<2>; 2] =
            projected.chunk(2, 1).try_into().expect("two gates");
        let f = sigmoid(from_forget + h.clone().matmul(self.recurrent_forget.clone()));
        let remembered = f.clone() * h.clone();
        let g = tanh(from_candidate + remembered.matmul(self.recurrent_candidate.clone()));
        let g = apply_mask(&masks.candidate, g); // Semeniuta dropout
        let h = h.clone() + f * (g - h);
        let h = apply_mask(&masks.hidden, h); // standard and Gal dropout
        (h.clone(), Hidden(h))
    }
}

/// Level 2 with parameters.
#[derive(Module, Debug)]
struct MguCell {
    weight_input: Param<Tensor<2>>,
    recurrent_forget: Param<Tensor<2>>,
    recurrent_candidate: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl MguCell {
    fn new(d_input: usize, d_hidden: usize, device: &Device) -> Self {
        let initializer = Initializer::XavierUniform { gain: 1.0 };
        let matrix = |rows: usize, columns: usize| {
            initializer.init_with([rows, columns], Some(rows), Some(d_hidden), device)
        };
        Self {
            weight_input: matrix(d_input, 2 * d_hidden),
            recurrent_forget: matrix(d_hidden, d_hidden),
            recurrent_candidate: matrix(d_hidden, d_hidden),
            bias: Initializer::Zeros.init([2 * d_hidden], device),
        }
    }
}

impl Cell for MguCell {
    type Step = MguStep;

    fn bind(&self) -> MguStep {
        MguStep {
            weight_input: self.weight_input.val(),
            recurrent_forget: self.recurrent_forget.val(),
            recurrent_candidate: self.recurrent_candidate.val(),
            bias: self.bias.val(),
        }
    }

    fn d_input(&self) -> usize {
        self.weight_input.lazy_shape()[0]
    }

    fn d_hidden(&self) -> usize {
        self.recurrent_forget.lazy_shape()[0]
    }
}

fn main() -> Result<(), InvalidConfig> {
    let device = Device::default();
    let stack: Stack<MguCell> = StackConfig::new(10, 16)
        .with_num_layers(2)
        .with_bidirectional(true)
        .with_dropout(0.2)
        .with_recurrent_dropout(RecurrentDropout::Gal { prob: 0.3 })
        .try_init_with(|d_input, d_hidden| Ok(MguCell::new(d_input, d_hidden, &device)))?;

    let batch = Tensor::<3>::ones([3, 7, 10], &device);
    let lengths = Lengths::new([7, 2, 4], 7).expect("lengths of this batch");
    let options = ForwardOptions {
        lengths: Some(&lengths),
        ..ForwardOptions::default()
    };
    let (output, state) = stack.forward_with(batch, None, options);

    println!("minimal gated unit, 2 layers, both directions, lengths 7, 2, 4");
    println!(
        "output {:?}, one state per layer and direction: {}",
        output.dims(),
        state.cells.len()
    );
    println!("parameters: {}", stack.num_params());
    for (sequence, length) in lengths.as_slice().iter().enumerate() {
        let sizes: Vec<String> = (0..7)
            .map(|t| {
                let step = output
                    .clone()
                    .slice([sequence..sequence + 1, t..t + 1, 0..32]);
                format!("{:.2}", step.abs().mean().into_scalar::<f32>())
            })
            .collect();
        println!(
            "sequence {sequence}, length {length}: mean |y| per step {}",
            sizes.join(" ")
        );
    }
    Ok(())
}
