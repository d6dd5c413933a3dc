//! What the documents say is what the programs do.

use std::collections::BTreeSet;

use shared::config::Setting;
use shared::store::open;

const EXAMPLE: &str = include_str!("../../deployment/example.env");

fn all_settings() -> Vec<&'static Setting> {
    let tables = [
        api::config::SETTINGS,
        worker::config::SETTINGS,
        cli::config::SETTINGS,
        open::ANY_SETTINGS,
        shared::telemetry::SETTINGS,
    ];
    tables.into_iter().flatten().collect()
}

/// The lines of the example that set something, or would without their `#`.
fn lines_of_example() -> Vec<(&'static str, &'static str)> {
    let bare = EXAMPLE.lines().map(|line| line.trim_start_matches('#'));
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    bare.filter_map(|line| line.split_once('='))
        .filter(|(name, _)| is_name(name))
        .collect()
}

#[test]
fn the_example_has_every_setting_and_no_other() {
    let settings: BTreeSet<&str> = all_settings().iter().map(|setting| setting.name).collect();
    let example: BTreeSet<&str> = lines_of_example().iter().map(|(name, _)| *name).collect();
    assert_eq!(example, settings);
}

#[test]
fn the_example_shows_the_defaults() {
    let example = lines_of_example();
    for setting in all_settings()
        .iter()
        .filter(|setting| !setting.default.is_empty())
    {
        let shown = example.iter().find(|(name, _)| *name == setting.name);
        let shown = shown.map(|(_, value)| *value);
        assert_eq!(shown, Some(setting.default), "{}", setting.name);
    }
}
