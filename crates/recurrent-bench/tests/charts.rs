//! Draws charts as large as those of a real experiment. They are left in the `tmp` directory of
//! Cargo's target directory, to be looked at: `rsvg-convert -o bars.png bars.svg`.

use std::fs;
use std::path::{Path, PathBuf};

use recurrent_bench::chart::{Axis, BarChart, LineChart};
use recurrent_bench::report::Summary;

const MODELS: [&str; 7] = [
    "LSTM",
    "LSTM without forget gate",
    "peephole LSTM",
    "coupled gates (CIFG)",
    "GRU",
    "mLSTM",
    "a model whose name is much longer than any label should ever be",
];

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Numbers that look like results and are the same in every run.
fn wave(i: usize, j: usize) -> f64 {
    ((i * 7 + j * 13) as f64 * 1.7).sin()
}

fn runs(mean: f64, spread: f64, seed: usize) -> Option<Summary> {
    let values: Vec<f64> = (0..5).map(|j| mean + spread * wave(seed, j)).collect();
    Summary::of(&values)
}

fn grouped_bars() -> BarChart {
    let scaled = |factor: f64, spread: f64| {
        move |i: usize| match i {
            3 if factor < 1.0 => None,
            5 => Summary::of(&[f64::NAN, 1.0]),
            _ => runs((95.0 - 9.0 * i as f64) * factor, spread, i),
        }
    };
    let all = 0..MODELS.len();
    let published = [
        Some(95.5),
        Some(70.0),
        None,
        Some(68.0),
        Some(51.5),
        None,
        Some(99.0),
    ];
    BarChart::new(
        "How many items each model can hold",
        Axis::new("test accuracy").unit("%"),
        MODELS,
    )
    .series("10 items", all.clone().map(scaled(1.0, 2.0)))
    .series("20 items", all.clone().map(scaled(0.8, 6.0)))
    .series("40 items", all.map(scaled(0.35, 3.0)))
    .markers("published (Hochreiter & Schmidhuber, 1997)", published)
    .line("guessing (12.5 %)", 12.5)
    .note("Trained for 20 000 steps with Adam. The published values are those for 10 items.")
}

fn single_bars() -> BarChart {
    let means = [1.25, -0.4, 0.02, 0.8, -1.1, 0.5, 0.3];
    let bars = means
        .iter()
        .enumerate()
        .map(|(i, mean)| runs(*mean, 0.2, i));
    BarChart::new(
        "Gain over the LSTM",
        Axis::new("difference in loss").unit("nats"),
        MODELS,
    )
    .series("gain", bars)
}

fn curves() -> LineChart {
    let curve = |i: usize| {
        (0..=2000).map(move |step| {
            let x = step as f64 * 10.0;
            let noise = 0.03 * (step as f64 * 0.05 + wave(i, step / 100)).sin();
            let value = 0.167 * (-x / (4000.0 + 2500.0 * i as f64)).exp() * (1.0 + noise);
            // The third model diverges.
            (
                x,
                if i == 2 && step > 900 {
                    f64::NAN
                } else {
                    value
                },
            )
        })
    };
    let chart = LineChart::new(
        "Adding problem, sequences of 200 steps",
        Axis::new("training steps"),
        Axis::new("mean squared error"),
    );
    (0..10)
        .fold(chart, |chart, i| {
            let name = MODELS.get(i).map_or_else(|| format!("model {i}"), |name| name.to_string());
            chart.series(name, curve(i))
        })
        .line("always answering 1 (0.167)", 0.167)
        .note("One seed per model. The curve of the peephole LSTM ends where its loss is no longer finite.")
}

fn cut_curves() -> LineChart {
    let x = Axis::new("time").unit("s");
    let y = Axis::new("norm of the gradient").range(0.0, 2.0);
    LineChart::new("Gradients", x, y)
        .series(
            "spikes",
            (0..60).map(|i| (f64::from(i), if i % 10 == 5 { 8.0 } else { 0.5 })),
        )
        .series("one point", [(30.0, 1.5)])
}

#[test]
fn all_kinds_of_charts_are_written() {
    grouped_bars().save(&place("bars.svg")).unwrap();
    single_bars().save(&place("single.svg")).unwrap();
    curves().save(&place("lines.svg")).unwrap();
    cut_curves().save(&place("cut.svg")).unwrap();
    for name in ["bars.svg", "single.svg", "lines.svg", "cut.svg"] {
        let svg = fs::read_to_string(place(name)).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }
}

#[test]
fn charts_are_deterministic() {
    assert_eq!(
        grouped_bars().to_svg().unwrap(),
        grouped_bars().to_svg().unwrap()
    );
    assert_eq!(curves().to_svg().unwrap(), curves().to_svg().unwrap());
}
