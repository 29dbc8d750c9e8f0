//! Option sets, the cells that have them, and lengths.

use recurrent_core::Dims;
use recurrent_core::eval::oracle::OracleNorm;
use recurrent_core::eval::problems::Problem;

/// How a step is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `LstmStep`
    Packed,
    /// `SlowLstmStep`
    PerGate,
    /// `LstmStep` with normalisations
    LayerNorm,
}

use Kind::{LayerNorm, Packed, PerGate};

/// One of the four forms of `Normalizer`, by name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    Standard,
    LstmsPth,
    Bradbury,
    Ba,
}

impl Form {
    pub fn oracle(self) -> OracleNorm {
        let (unbiased, epsilon, inside_root) = match self {
            Form::Standard => (false, 1e-5, true),
            Form::LstmsPth => (true, 1e-6, true),
            Form::Bradbury => (true, 1e-6, false),
            Form::Ba => (false, 1e-5, false),
        };
        OracleNorm {
            unbiased,
            epsilon,
            inside_root,
            gain: vec![],
            shift: vec![],
        }
    }
}

/// Kind of one dropout mask.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Drop {
    #[default]
    None,
    PerSequence,
    PerStep,
    /// Per step, for more steps than the input has.
    PerStepLonger,
    /// The same share everywhere: zoneout in evaluation.
    Expectation,
}

/// One set of options, and the cells that have them.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub name: &'static str,
    pub cells: &'static [Kind],
    pub bias: bool,
    /// b_x and b_h, in and outside of normalisations.
    pub inner_biases: bool,
    pub clip: Option<f64>,
    pub project: bool,
    pub hidden: Drop,
    pub cell: Drop,
    pub candidate: Drop,
    pub update_hidden: Drop,
    pub update_cell: Drop,
    pub form: Option<Form>,
    /// LN_x, LN_h, LN_c
    pub norms: [bool; 3],
    pub learnable: bool,
    pub carry_normalized: bool,
}

const ALL: [bool; 3] = [true, true, true];

/// Bites for initial cells in ±1.
const CLIP: Option<f64> = Some(0.35);

/// Every option set.
pub fn option_sets() -> Vec<Options> {
    let lstm = |name| Options {
        name,
        cells: &[Packed, PerGate],
        bias: true,
        ..Options::default()
    };
    let norm = |name, form| Options {
        name,
        cells: &[LayerNorm],
        bias: true,
        form: Some(form),
        norms: ALL,
        learnable: true,
        ..Options::default()
    };
    let only = |name, norms| Options {
        norms,
        ..norm(name, Form::Standard)
    };
    vec![
        Options {
            cells: &[Packed, PerGate, LayerNorm],
            ..lstm("plain")
        },
        Options {
            bias: false,
            ..lstm("no bias")
        },
        Options {
            cells: &[PerGate, LayerNorm],
            bias: false,
            inner_biases: true,
            ..lstm("two biases")
        },
        Options {
            clip: CLIP,
            ..lstm("clip")
        },
        Options {
            project: true,
            ..lstm("projection")
        },
        Options {
            hidden: Drop::PerSequence,
            ..lstm("hidden mask per sequence (Gal)")
        },
        Options {
            hidden: Drop::PerStep,
            ..lstm("hidden mask per step")
        },
        Options {
            cell: Drop::PerSequence,
            ..lstm("cell mask per sequence (Moon)")
        },
        Options {
            candidate: Drop::PerStepLonger,
            ..lstm("candidate mask per step (Semeniuta)")
        },
        Options {
            update_hidden: Drop::PerStep,
            update_cell: Drop::PerStep,
            ..lstm("zoneout")
        },
        Options {
            update_hidden: Drop::Expectation,
            update_cell: Drop::Expectation,
            ..lstm("zoneout in evaluation")
        },
        Options {
            clip: CLIP,
            project: true,
            hidden: Drop::PerStep,
            cell: Drop::PerSequence,
            candidate: Drop::PerStep,
            update_hidden: Drop::PerSequence,
            update_cell: Drop::PerStep,
            ..lstm("everything without norms")
        },
        norm("Ba et al.: bias outside, raw cell carried", Form::Standard),
        Options {
            bias: false,
            inner_biases: true,
            carry_normalized: true,
            ..norm(
                "lstms.pth: biases inside, normalised cell carried",
                Form::LstmsPth,
            )
        },
        Options {
            carry_normalized: true,
            ..norm("bias outside, normalised cell carried", Form::Ba)
        },
        Options {
            bias: false,
            inner_biases: true,
            ..norm("biases inside, raw cell carried", Form::Bradbury)
        },
        Options {
            bias: false,
            learnable: false,
            ..norm("norms without gain, shift and bias", Form::Standard)
        },
        only("LN_x alone", [true, false, false]),
        only("LN_h alone", [false, true, false]),
        only("LN_c alone, raw cell carried", [false, false, true]),
        Options {
            carry_normalized: true,
            ..only("LN_c alone, normalised cell carried", [false, false, true])
        },
        Options {
            inner_biases: true,
            clip: CLIP,
            project: true,
            hidden: Drop::PerSequence,
            cell: Drop::PerStep,
            candidate: Drop::PerStep,
            update_hidden: Drop::PerStep,
            update_cell: Drop::Expectation,
            carry_normalized: true,
            ..norm("everything with norms", Form::LstmsPth)
        },
    ]
}

/// Names of three option sets for tests that do not need every one.
pub const FEW_AND_ALL: [&str; 3] = ["plain", "everything without norms", "everything with norms"];

/// The option set of that name.
pub fn options(name: &str) -> Options {
    option_sets()
        .into_iter()
        .find(|options| options.name == name)
        .unwrap_or_else(|| panic!("no option set `{name}`"))
}

impl Options {
    /// Whether something is normalised that is one number, or one number times a vector. The result
    /// hardly depends on the number: the slope is what ε leaves of it, below the rounding of f32.
    pub fn cancels(&self, dims: &Dims) -> bool {
        let [norm_input, norm_hidden, norm_cell] = self.norms;
        let from_input = norm_input && dims.d_input == 1 && !self.inner_biases;
        let from_hidden = norm_hidden && self.d_output(dims) == 1 && !self.inner_biases;
        from_input || from_hidden || norm_cell && dims.d_hidden == 1
    }

    /// Size of h: with a projection smaller than H where H allows it.
    pub fn d_output(&self, dims: &Dims) -> usize {
        if self.project {
            dims.d_hidden.div_ceil(2)
        } else {
            dims.d_hidden
        }
    }

    /// Why the options have no meaning at these sizes, if they have none.
    pub fn excluded(&self, dims: &Dims) -> Option<&'static str> {
        let unbiased = matches!(self.form, Some(Form::LstmsPth | Form::Bradbury));
        (unbiased && self.norms[2] && dims.d_hidden == 1)
            .then_some("unbiased variance of one unit: 0 / 0")
    }
}

/// No lengths, and lists of unequal, unsorted ones; some shorter than the input throughout. Their
/// sorting permutations are not their own inverses where the batch allows it.
pub fn length_lists(problem: &Problem) -> Vec<Option<Vec<usize>>> {
    let lists: &[&[usize]] = match problem.name {
        "odd sizes" => &[&[1, 4, 2]],
        "one sequence" => &[&[3]],
        "one step" => &[&[1, 1]],
        "one unit" => &[&[1, 3], &[1, 2]],
        "one feature" => &[&[1, 3, 2, 1]],
        "long" => &[&[33, 70]],
        other => panic!("write lengths for the new problem `{other}`"),
    };
    let some = lists.iter().map(|list| Some(list.to_vec()));
    core::iter::once(None).chain(some).collect()
}
