//! Which files a kernel runs: what the table of `docs/kernels.md` says, so that its claims are tested.

use crate::file::Golden;

const KERNELS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/kernels.md"
));

/// Something of a file that the table names, as it names it.
enum Claim {
    Says(&'static str),
    /// `up to 8 rounds`, and how many the file has.
    UpTo(usize, &'static str),
}

use Claim::{Says, UpTo};

/// A row of the table: the cells' phrases.
struct Row {
    fused: Vec<String>,
    composed: Vec<String>,
}

impl Row {
    /// The row of a type, whose name is in backticks.
    fn find(table: &str, name: &str) -> Result<Self, String> {
        let start = "| | fused | composed |";
        let lines = table.lines().skip_while(|line| *line != start);
        let mut rows = lines.skip(2).take_while(|line| line.starts_with('|'));
        let row = rows
            .find_map(|line| match *line.split('|').collect::<Vec<_>>() {
                [_, first, fused, composed, _] if first.contains(name) => Some((fused, composed)),
                _ => None,
            })
            .ok_or_else(|| format!("the table of docs/kernels.md has no row of {name}"))?;
        let phrases = |cell: &str| {
            let phrases = cell.split([';', ',', ':']).map(str::trim);
            phrases.map(String::from).collect()
        };
        Ok(Self {
            fused: phrases(row.0),
            composed: phrases(row.1),
        })
    }

    /// Whether the cells say that a kernel runs a sequence of this.
    fn is_fused(&self, name: &str, claim: &Claim) -> Result<bool, String> {
        let says = |phrases: &[String], text: &str| phrases.iter().any(|phrase| phrase == text);
        let fused = match claim {
            Says(text) if says(&self.composed, text) => Some(false),
            Says(text) => says(&self.fused, text).then_some(true),
            UpTo(count, unit) => self.fused.iter().find_map(|phrase| {
                let most = phrase.strip_prefix("up to ")?.strip_suffix(unit)?.trim();
                Some(*count <= most.parse::<usize>().ok()?)
            }),
        };
        let text = match claim {
            Says(text) | UpTo(_, text) => text,
        };
        fused.ok_or_else(|| format!("docs/kernels.md does not say `{text}` of {name}"))
    }
}

/// The row of a file, and what it must have of that row.
fn claims(golden: &Golden) -> Result<(&'static str, Vec<Claim>), String> {
    let count = |key| {
        golden
            .usize(key)
            .ok_or_else(|| format!("options have no `{key}`"))
    };
    let mut claims = vec![];
    let name = match golden.variant.as_str() {
        "alstm" => {
            claims.extend([
                UpTo(count("num_layers")?, "layers"),
                Says("both policy layouts"),
                Says("all masks"),
            ]);
            "`AdaptiveLstm`"
        }
        "mogrifier" | "mogrifier_paper" => {
            claims.extend([UpTo(count("rounds")?, "rounds"), Says("full or low rank")]);
            "`MogrifierLstm`"
        }
        "peephole_diag" | "peephole_full" | "cifg_peephole" => {
            let new_cell = golden.option("output_peephole") == "c_t";
            claims.push(Says(match golden.option("peephole").as_str() {
                Some("diagonal") => "diagonal",
                Some("full") if new_cell => "full on the new cell",
                _ => "full on the previous cell",
            }));
            "`PeepholeLstm`"
        }
        "gru" => {
            claims.push(Says("both places of the reset gate"));
            if !golden.option("lengths").is_null() {
                claims.push(Says("lengths"));
            }
            if golden.flag("bidirectional") {
                claims.push(Says("both directions"));
            }
            "`Gru`"
        }
        "alstm_cell"
        | "alstm_cell_asshipped"
        | "exercise_lstmcell"
        | "gru_cell"
        | "torch_lstmcell"
        | "urlstm_cell" => {
            claims.push(Says("always"));
            "`step` of a bare cell"
        }
        other => {
            claims.push(Says("all options"));
            if golden.flag("layer_norm") {
                claims.push(Says("layer normalisation in every form"));
            }
            if golden.usize("proj_size").unwrap_or(0) > 0 {
                claims.push(Says("projection"));
            }
            if !golden.names_after("mask.").is_empty() {
                claims.push(Says("every dropout mask"));
            }
            if !golden.option("lengths").is_null() {
                claims.push(Says("lengths"));
            }
            if golden.flag("bidirectional") {
                claims.push(Says("both directions"));
            }
            match other {
                "lstms_slow" => "`SlowLstm`",
                "cifg" => "`CifgLstm`",
                "urlstm" | "rlstm" => "`UrLstm`",
                _ if golden.flag("layer_norm") => "`LayerNormLstm`",
                _ => "`Lstm`",
            }
        }
    };
    Ok((name, claims))
}

/// Whether a kernel should run a file, by the documentation.
pub fn expected(golden: &Golden) -> Result<bool, String> {
    by_table(golden, KERNELS)
}

fn by_table(golden: &Golden, table: &str) -> Result<bool, String> {
    // A normaliser is no sequence.
    if golden.variant == "lstms_norm" {
        return Ok(false);
    }
    let (name, claims) = claims(golden)?;
    let row = Row::find(table, name)?;
    let mut fused = true;
    for claim in &claims {
        fused &= row.is_fused(name, claim)?;
    }
    Ok(fused)
}

/// Another table, another expectation; one that is silent is an error.
#[test]
fn the_table_decides() {
    use burn::tensor::Device;
    use recurrent_modules::Strategy;

    let file = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data");
        let path = path.join(name).with_extension("safetensors");
        Golden::open(&path, &Device::flex(), Strategy::Auto).expect("a golden file")
    };
    let coupled = file("cifg_peephole__full_ct_state");
    let mogrifier = file("mogrifier__r6_state");
    assert_eq!(expected(&coupled), Ok(false));
    assert_eq!(expected(&mogrifier), Ok(true));
    let changed = |from: &str, to: &str| {
        assert!(
            KERNELS.contains(from),
            "docs/kernels.md no longer has `{from}`"
        );
        KERNELS.replace(from, to)
    };
    let all = changed(
        "full on the previous cell | full on the new cell;",
        "full on the new cell |",
    );
    assert_eq!(by_table(&coupled, &all), Ok(true));
    let fewer = changed("up to 8 rounds", "up to 5 rounds");
    assert_eq!(by_table(&mogrifier, &fewer), Ok(false));
    let silent = changed("full or low rank", "any matrices");
    assert!(by_table(&mogrifier, &silent).is_err());
}
