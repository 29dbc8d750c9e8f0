//! The comparisons themselves must be able to fail.

use crate::support::*;
use recurrent_modules::Recurrent;

/// Two gates swapped in the weights change values and gradients.
#[test]
fn swapped_gates_are_noticed() {
    let device = flex();
    let (_, config) = &variants()[0];
    let module = build(config, 11, &device);
    let problem = Problem::new(&module, true, 12, &device);
    let expected = record(&module, &problem, |x, s| module.forward(x, Some(s)));

    let mut swapped = module.clone();
    let Recurrent::Lstm(stack) = &mut swapped else {
        panic!("the first variant is the Lstm")
    };
    let weight = &mut stack.layers[0].forward.gates.weight_hidden;
    let mut blocks = weight.val().detach().chunk(4, 1);
    blocks.swap(0, 3);
    let replaced = burn::tensor::Tensor::cat(blocks, 1).detach();
    *weight = burn::module::Param::from_tensor(replaced);
    let got = record(&swapped, &problem, |x, s| swapped.forward(x, Some(s)));
    for name in [
        "output",
        "state.0.cell",
        "grad.input",
        "grad.layers.0.forward.gates.bias",
    ] {
        assert_differs(name, got.get(name), expected.get(name));
    }
}

/// Every gradient that there should be is recorded, and none is zero throughout.
#[test]
fn records_are_complete() {
    let device = flex();
    for_each(all_containers, &device, |name, _, module, problem| {
        let results = record(module, problem, |x, s| module.forward(x, Some(s)));
        let states = named_state(&problem.state).len();
        let mut parameters = 0;
        each_parameter(module, |_, _| parameters += 1);
        assert_eq!(
            results.0.len(),
            1 + states + 1 + states + parameters,
            "{name}"
        );
        for (entry, values) in &results.0 {
            assert!(values.iter().any(|&v| v != 0.0), "{name}: {entry} is zero");
        }
    });
}
