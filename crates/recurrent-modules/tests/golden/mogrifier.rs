//! The Mogrifier: the notebook's (shared matrices, x·W) and the paper's (own matrices, x·Wᵀ).

use recurrent_modules::MogrifierLstmConfig;
use recurrent_modules::import::originals::mogrifier::MogrifierNotebook;

use crate::exercise::run;
use crate::file::{Golden, Outputs};
use crate::torch::param;

fn config(golden: &Golden) -> Result<MogrifierLstmConfig, String> {
    let size = |key| {
        golden
            .usize(key)
            .ok_or_else(|| format!("options have no `{key}`"))
    };
    Ok(
        MogrifierLstmConfig::new(size("input_size")?, size("hidden_size")?)
            .with_rounds(size("rounds")?)
            .with_batch_first(golden.flag("batch_first")),
    )
}

pub fn notebook(golden: &Golden) -> Result<Outputs, String> {
    let lstm = config(golden)?.with_share_rounds(true).init(&golden.device);
    let lstm = golden.fill(&MogrifierNotebook, lstm)?;
    Ok(run(golden, lstm))
}

pub fn paper(golden: &Golden) -> Result<Outputs, String> {
    let rank = golden.usize("rank").filter(|&rank| rank > 0);
    let mut lstm = config(golden)?
        .with_rank(rank)
        .with_round_bias(golden.flag("gate_bias"))
        .init(&golden.device);
    let cell = &mut lstm.layers[0].forward;
    for (index, round) in cell.rounds.iter_mut().enumerate() {
        let letter = if index % 2 == 0 { "q" } else { "r" };
        let name = |part: &str| format!("param.{letter}{part}.{}", index / 2);
        // The file has q = q_left·q_right applied as h·qᵀ = h·q_rightᵀ·q_leftᵀ.
        if rank.is_some() {
            round.left = param(golden.leaf::<2>(&name("_right")).transpose());
            round.right = Some(param(golden.leaf::<2>(&name("_left")).transpose()));
        } else {
            round.left = param(golden.leaf::<2>(&name("")).transpose());
        }
        if round.bias.is_some() {
            round.bias = Some(param(golden.leaf::<1>(&name("_bias"))));
        }
    }
    cell.gates.weight_input = param(golden.leaf::<2>("param.weight_ih").transpose());
    cell.gates.weight_hidden = param(golden.leaf::<2>("param.weight_hh").transpose());
    let bias = golden.leaf::<1>("param.bias_ih") + golden.leaf::<1>("param.bias_hh");
    cell.gates.bias = Some(param(bias));
    Ok(run(golden, lstm))
}
