//! Coupled gates and peepholes: one matrix per gate and source, `[out, in]`.

use burn::tensor::Tensor;
use recurrent_core::{Gate, GateLayout};
use recurrent_modules::cells::{Cell, GateWeights, PeepholeWeights};
use recurrent_modules::{
    CifgLstmConfig, Coupling, LstmState, OutputPeephole, PeepholeKind, PeepholeLstmConfig, Stack,
    StackState,
};

use crate::file::{Golden, Outputs, push};
use crate::torch::param;

fn letter(gate: Gate) -> &'static str {
    match gate {
        Gate::Input => "i",
        Gate::Forget => "f",
        Gate::Candidate => "c",
        Gate::Output => "o",
        other => panic!("the exercise has no {other:?} gate"),
    }
}

fn fill(gates: &mut GateWeights, layout: GateLayout, golden: &Golden, layer: usize) {
    let packed = |source: &str| {
        let block = |&gate: &Gate| {
            let name = format!("param.layers.{layer}.W{}{source}", letter(gate));
            golden.leaf::<2>(&name).transpose()
        };
        Tensor::cat(layout.gates().iter().map(block).collect(), 1)
    };
    gates.weight_input = param(packed("x"));
    gates.weight_hidden = param(packed("h"));
    let bias = |&gate: &Gate| golden.leaf::<1>(&format!("param.layers.{layer}.b{}", letter(gate)));
    gates.bias = Some(param(Tensor::cat(
        layout.gates().iter().map(bias).collect(),
        0,
    )));
}

fn fill_peephole(weights: &mut PeepholeWeights, golden: &Golden, layer: usize, gate: &str) {
    let name = format!("param.layers.{layer}.V{gate}");
    if weights.full.is_some() {
        weights.full = Some(param(golden.leaf::<2>(&name).transpose()));
    } else {
        weights.diagonal = Some(param(golden.leaf::<1>(&name)));
    }
}

/// Runs a filled stack on the file's input and state.
pub fn run<C>(golden: &Golden, mut stack: Stack<C>) -> Outputs
where
    C: Cell,
    C::Step: recurrent_core::Step<State = LstmState<2>>,
{
    let layers = stack.layers.len();
    let state = golden.has("h0").then(|| match layers {
        1 => StackState::from(LstmState {
            cell: golden.leaf::<2>("c0"),
            hidden: golden.leaf::<2>("h0"),
        }),
        _ => StackState::from_stacked(LstmState {
            cell: golden.leaf::<3>("c0"),
            hidden: golden.leaf::<3>("h0"),
        }),
    });
    golden.start(&mut stack);
    let (y, state) = stack.forward(golden.leaf::<3>("x"), state);
    let state = state.into_stacked();
    let mut outputs = vec![];
    push(&mut outputs, "y", y);
    push(&mut outputs, "h_n", state.hidden);
    push(&mut outputs, "c_n", state.cell);
    outputs
}

pub fn lstm(golden: &Golden) -> Result<Outputs, String> {
    let size = |key| {
        golden
            .usize(key)
            .ok_or_else(|| format!("options have no `{key}`"))
    };
    let (d_input, d_hidden, layers) = (
        size("input_size")?,
        size("hidden_size")?,
        size("num_layers")?,
    );
    let coupling = match golden.flag("coupled") {
        true => Coupling::InputFromForget,
        false => Coupling::Independent,
    };
    let layout = coupling.layout();
    let batch_first = golden.flag("batch_first");
    let output_looks_at = match golden.option("output_peephole").as_str() {
        Some("c_t") => Some(OutputPeephole::NewCell),
        Some("c_tm1") => Some(OutputPeephole::PreviousCell),
        None => None,
        other => return Err(format!("unknown output peephole {other:?}")),
    };
    let Some(peephole) = golden.option("peephole").as_str() else {
        let mut stack = CifgLstmConfig::new(d_input, d_hidden)
            .with_coupling(coupling)
            .with_num_layers(layers)
            .with_batch_first(batch_first)
            .init(&golden.device);
        for (index, layer) in stack.layers.iter_mut().enumerate() {
            fill(&mut layer.forward.gates, layout, golden, index);
        }
        return Ok(run(golden, stack));
    };
    let mut stack = PeepholeLstmConfig::new(d_input, d_hidden)
        .with_peephole(match peephole {
            "diagonal" => PeepholeKind::Diagonal,
            "full" => PeepholeKind::Full,
            other => return Err(format!("unknown peephole `{other}`")),
        })
        .with_output_looks_at(output_looks_at.ok_or("options have no `output_peephole`")?)
        .with_coupling(coupling)
        .with_num_layers(layers)
        .with_batch_first(batch_first)
        .init(&golden.device);
    for (index, layer) in stack.layers.iter_mut().enumerate() {
        let cell = &mut layer.forward;
        fill(&mut cell.gates, layout, golden, index);
        let peepholes = [
            ("i", cell.peephole_input.as_mut()),
            ("f", cell.peephole_forget.as_mut()),
            ("o", Some(&mut cell.peephole_output)),
        ];
        for (gate, weights) in peepholes {
            if let Some(weights) = weights {
                fill_peephole(weights, golden, index, gate);
            }
        }
    }
    Ok(run(golden, stack))
}
