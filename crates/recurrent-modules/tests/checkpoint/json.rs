//! Configs as JSON: one flat object, whatever struct a field is in.

use burn::config::Config;
use recurrent_modules::{
    AdaptiveLstmConfig, GruConfig, LstmConfig, MogrifierLstmConfig, RecurrentConfig,
    RecurrentDropout, StackConfig, cells::SharedConfig,
};
use serde_json::{Map, Value, json};

use crate::{configs, configs_of_version_0_1_0};

fn object(config: &impl Config) -> Map<String, Value> {
    match serde_json::to_value(config).expect("JSON") {
        Value::Object(fields) => fields,
        other => panic!("{other} is no object"),
    }
}

fn read<C: Config>(json: &str) -> Result<C, String> {
    C::load_binary(json.as_bytes()).map_err(|error| error.to_string())
}

fn lstm() -> LstmConfig {
    LstmConfig::new(3, 4)
        .with_num_layers(2)
        .with_dropout(0.1)
        .with_recurrent_dropout(RecurrentDropout::Zoneout {
            hidden: 0.3,
            cell: 1.0 / 3.0,
        })
        .with_clip(Some(f64::MIN_POSITIVE))
        .with_forget_bias(Some(-0.1 - 0.2))
}

/// The files of 0.1.0, to the field.
#[test]
fn fields_are_those_of_version_0_1_0() {
    for (name, config) in configs_of_version_0_1_0() {
        let path = crate::old_folder()
            .join(name)
            .join(recurrent_modules::CONFIG_FILE);
        let text = std::fs::read_to_string(path).expect("committed");
        let expected: Value = serde_json::from_str(&text).expect("JSON");
        let config = crate::without_initial_values(config);
        let got = serde_json::to_value(&config).expect("JSON");
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn every_value_comes_back() {
    for (name, config) in configs() {
        assert_eq!(read(&config.to_string()), Ok(config), "{name}");
    }
    assert_eq!(read(&lstm().to_string()), Ok(lstm()));
    let largest = LstmConfig::new(usize::MAX, usize::MAX - 1);
    assert_eq!(read(&largest.to_string()), Ok(largest));
    let shared = SharedConfig::new(3, 4).with_d_proj(Some(2));
    assert_eq!(read(&shared.to_string()), Ok(shared));
}

#[test]
fn order_unknown_fields_and_missing_options() {
    let fields = object(&lstm());
    let mut backwards: Vec<String> = fields
        .iter()
        .map(|(key, value)| format!("{}: {value}", Value::from(key.as_str())))
        .collect();
    backwards.push(r#""of_a_later_version": {"clip": [1, 2]}"#.into());
    backwards.reverse();
    let text = format!("{{{}}}", backwards.join(", "));
    assert_eq!(read(&text), Ok(lstm()));

    let plain = LstmConfig::new(3, 4);
    let mut fields = object(&plain);
    fields.retain(|_, value| !value.is_null());
    assert!(!fields.contains_key("clip") && !fields.contains_key("gate_init"));
    assert_eq!(read(&Value::from(fields).to_string()), Ok(plain));

    // A whole number for a float.
    let mut fields = object(&lstm());
    fields.insert("clip".into(), json!(2));
    let config = read(&Value::from(fields).to_string());
    assert_eq!(config, Ok(lstm().with_clip(Some(2.0))));
}

/// A field of each of the structs that a config is made of.
#[test]
fn a_field_that_is_missing_or_there_twice_is_named() {
    let mogrifier = MogrifierLstmConfig::new(3, 4);
    for field in ["d_input", "num_layers", "bias", "rounds"] {
        let mut fields = object(&mogrifier);
        fields.remove(field).expect("a field");
        let error = read::<MogrifierLstmConfig>(&Value::from(fields).to_string());
        let error = error.expect_err("a field is missing");
        assert!(
            error.contains(&format!("missing field `{field}`")),
            "{error}"
        );

        let text = mogrifier.to_string();
        let twice = text.replacen(
            '{',
            &format!("{{ \"{field}\": {},", object(&mogrifier)[field]),
            1,
        );
        let error = read::<MogrifierLstmConfig>(&twice).expect_err("a field is there twice");
        assert!(
            error.contains(&format!("duplicate field `{field}`")),
            "{error}"
        );
    }
}

/// A wrong value is reported where it is.
#[test]
fn a_wrong_value_is_reported_with_its_line() {
    let text = RecurrentConfig::AdaptiveLstm(AdaptiveLstmConfig::new(3, 4)).to_string();
    for field in ["d_hidden", "bias", "d_adapt"] {
        let line = text
            .lines()
            .position(|line| line.contains(&format!("\"{field}\"")));
        let line = line.expect("a line");
        let wrong: Vec<String> = text
            .lines()
            .enumerate()
            .map(|(index, own)| match index == line {
                true => format!("\"{field}\": \"many\","),
                false => own.to_string(),
            })
            .collect();
        let error = read::<RecurrentConfig>(&wrong.join("\n")).expect_err("a wrong value");
        assert!(
            error.contains(&format!("at line {} ", line + 1)) && error.contains("\"many\""),
            "{field}: {error}"
        );
    }
    let error = read::<LstmConfig>("3").expect_err("no object");
    assert!(
        error.contains("expected the fields of LstmConfig"),
        "{error}"
    );
}

/// The tag is the variant's name, and the variant's own field is beside the shared ones.
#[test]
fn a_gru_is_tagged_with_its_name() {
    let config = GruConfig::new(3, 4).with_reset_after(false);
    let tagged = serde_json::to_value(RecurrentConfig::Gru(config.clone())).expect("JSON");
    assert_eq!(tagged, json!({ "Gru": config }));
    let fields = object(&config);
    assert_eq!(fields["reset_after"], json!(false));
    assert_eq!(fields["d_hidden"], json!(4));
    assert_eq!(fields.len(), object(&SharedConfig::new(3, 4)).len() + 1);
}

/// Any variant has the shared fields and setters.
#[test]
fn shared_fields_of_a_variant_chosen_at_run_time() {
    for (name, config) in configs() {
        let mut changed = config.clone().with_batch_first(!config.batch_first);
        assert_ne!(changed, config, "{name}");
        let field = &serde_json::to_value(&changed).expect("JSON")[config.name()]["batch_first"];
        assert_eq!(field, &json!(!config.batch_first), "{name}");
        changed.batch_first = config.batch_first;
        assert_eq!(changed, config, "{name}");
    }
}

/// Each struct that is part of a config is one of its own, too.
#[test]
fn a_config_has_the_fields_of_those_in_it() {
    let stack = object(&StackConfig::new(3, 4));
    let shared = object(&SharedConfig::new(3, 4));
    let whole = object(&LstmConfig::new(3, 4));
    assert!(
        stack
            .iter()
            .all(|(key, value)| shared.get(key) == Some(value))
    );
    assert!(
        shared
            .iter()
            .all(|(key, value)| whole.get(key) == Some(value))
    );
    assert!(stack.len() < shared.len() && shared.len() + 1 == whole.len());

    let mut config = lstm();
    assert_eq!((config.num_layers, config.shared.stack.num_layers), (2, 2));
    config.num_layers = 5;
    config.clip = None;
    assert_eq!(
        (config.shared.stack.num_layers, config.shared.clip),
        (5, None)
    );
}
