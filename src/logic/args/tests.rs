//! One rule of reading arguments per test.

use proptest::prelude::*;

use super::*;

const NONE: &[&[u8]] = &[];

fn one<T>(argument: &[u8], read: impl FnOnce(&mut Args<'_>) -> Result<T, ArgError>) -> Result<T, ArgError> {
    read(&mut Args::new("INFER.X", &[argument]))
}

#[test]
fn a_missing_positional_argument_names_the_command_and_the_argument() {
    let error = Args::new("INFER.X", NONE).text("query").unwrap_err();
    assert_eq!(error.to_string(), "wrong number of arguments for 'INFER.X' command: query is missing");
    assert_eq!(error.code(), "ERR");
}

#[test]
fn a_missing_value_names_the_option() {
    let mut args = Args::new("INFER.X", &[b"ctx"]);
    args.option().unwrap();
    assert_eq!(args.integer("CTX", 1_u32, 9).unwrap_err().to_string(), "option CTX needs a value");
}

#[test]
fn arguments_left_over_are_an_error() {
    let mut args = Args::new("INFER.X", &[b"a", b"b"]);
    assert_eq!(args.required("first"), Ok(&b"a"[..]));
    assert_eq!(args.remaining(), 1);
    assert_eq!(args.end().unwrap_err().to_string(), "wrong number of arguments for 'INFER.X' command");
    args.required("second").unwrap();
    assert_eq!(args.end(), Ok(()));
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_position() {
    let error = one(b"twelve chars\xff", |args| args.text("text").map(str::to_owned)).unwrap_err();
    assert_eq!(error.to_string(), "text is not valid UTF-8 at byte 12");
}

#[test]
fn nul_and_line_ends_in_text_are_kept() {
    assert_eq!(one(b"a\0b\r\nc", |args| args.text("text").map(str::to_owned)).unwrap(), "a\0b\r\nc");
}

#[test]
fn text_of_the_longest_size_is_taken_and_a_byte_more_is_not() {
    let longest = vec![b'x'; limits::TEXT_MAX + 1];
    assert!(one(&longest[1..], |args| args.text("text").map(str::len)).is_ok());
    let error = one(&longest, |args| args.text("text").map(str::len)).unwrap_err();
    assert_eq!(error.to_string(), "text is longer than 8388608 bytes");
}

#[test]
fn only_non_empty_text_refuses_the_empty_text() {
    assert_eq!(one(b"", |args| args.text("text").map(str::len)), Ok(0));
    assert_eq!(one(b"", |args| args.non_empty_text("query").map(str::len)), Err(ArgError::Empty { what: "query" }));
}

#[test]
fn a_model_can_be_named_by_a_star() {
    let model = |bytes: &[u8]| one(bytes, |args| args.model("model").map(str::to_owned));
    for good in ["*", "a", "**"] {
        assert_eq!(model(good.as_bytes()).unwrap(), good);
    }
    assert_eq!(model(b"{*}"), Err(ArgError::BadName { what: "model" }));
    assert_eq!(model(b"\xff"), Err(ArgError::NotUtf8 { what: "model", offset: 0 }));
}

#[test]
fn names_follow_the_rule_for_names() {
    let name = |bytes: &[u8]| one(bytes, |args| args.name("name").map(str::to_owned));
    for good in ["a", "llama-3.1 8B", "一", "**", &"x".repeat(128)] {
        assert_eq!(name(good.as_bytes()).unwrap(), good);
    }
    for bad in ["*", "{a", "a}", "a\nb", "a\0", "\u{85}"] {
        assert_eq!(name(bad.as_bytes()), Err(ArgError::BadName { what: "name" }), "{bad:?}");
    }
    assert_eq!(name(b""), Err(ArgError::Empty { what: "name" }));
    assert_eq!(name(&[b'x'; 129]), Err(ArgError::TooLong { what: "name", max: 128 }));
    assert_eq!(name(b"ab\xff"), Err(ArgError::NotUtf8 { what: "name", offset: 2 }));
}

#[test]
fn integers_are_plain_decimal_digits() {
    let integer = |bytes: &[u8]| one(bytes, |args| args.integer("N", -9_i64, 99));
    assert_eq!(integer(b"42"), Ok(42));
    assert_eq!(integer(b"-9"), Ok(-9));
    for bad in [&b""[..], b"-", b"+1", b" 1", b"1 ", b"1.0", b"1e1", b"0x1", b"--1", b"\xff", b"1\0", "١".as_bytes()] {
        assert_eq!(integer(bad), Err(ArgError::NotAnInteger { option: "N" }), "{bad:?}");
    }
}

#[test]
fn integers_out_of_range_are_told_the_bounds() {
    for bad in ["0", "65", "-1", "4294967297", "99999999999999999999999999", "-99999999999999999999999999"] {
        let error = one(bad.as_bytes(), |args| args.integer("PARALLEL", 1_u32, 64)).unwrap_err();
        assert_eq!(error.to_string(), "PARALLEL must be from 1 to 64", "{bad}");
    }
    assert_eq!(one(b"1", |args| args.integer("PARALLEL", 1_u32, 64)), Ok(1));
    assert_eq!(one(b"64", |args| args.integer("PARALLEL", 1_u32, 64)), Ok(64));
}

#[test]
fn auto_is_no_number() {
    assert_eq!(one(b"auto", |args| args.integer_or_auto("WORKERS", 1_u32, 4)), Ok(None));
    assert_eq!(one(b"4", |args| args.integer_or_auto("WORKERS", 1_u32, 4)), Ok(Some(4)));
    assert!(one(b"automatic", |args| args.integer_or_auto("WORKERS", 1_u32, 4)).is_err());
}

#[test]
fn numbers_that_are_not_finite_are_no_numbers() {
    for bad in ["nan", "NaN", "inf", "-inf", "infinity", "1e999", "", "0.5x", " 1", "0,5"] {
        let error = one(bad.as_bytes(), |args| args.number("TEMP", 0.0, 100.0)).unwrap_err();
        assert_eq!(error.to_string(), "TEMP is not a number", "{bad}");
    }
}

#[test]
fn numbers_are_compared_with_the_bounds_before_they_are_rounded() {
    assert_eq!(one(b"0.8", |args| args.number("TOPP", 0.0, 1.0)), Ok(0.8));
    assert_eq!(one(b"1", |args| args.number("TOPP", 0.0, 1.0)), Ok(1.0));
    for bad in ["1.00000000001", "-0.00000001", "1e300"] {
        let error = one(bad.as_bytes(), |args| args.number("TOPP", 0.0, 1.0)).unwrap_err();
        assert_eq!(error.to_string(), "TOPP must be from 0 to 1", "{bad}");
    }
}

#[test]
fn words_are_compared_without_case_and_listed_when_none_fits() {
    let word = |bytes: &[u8]| one(bytes, |args| args.word("ON", &[true, false], |on| if on { "YES" } else { "NO" }));
    assert_eq!(word(b"yEs"), Ok(true));
    assert_eq!(word(b"maybe").unwrap_err().to_string(), "ON must be one of YES, NO");
}

#[test]
fn keys_are_as_many_as_numkeys_says() {
    let arguments: &[&[u8]] = &[b"2", b"a", b"\xff", b"TEXT"];
    let mut args = Args::new("INFER.X", arguments);
    assert_eq!(args.keys().unwrap(), [&b"a"[..], b"\xff"]);
    assert_eq!(args.remaining(), 1);
    assert_eq!(Args::new("INFER.X", &[b"0"]).keys().unwrap(), NONE);
}

#[test]
fn a_bad_numkeys_says_what_is_wrong_with_it() {
    let keys =
        |arguments: &[&[u8]]| Args::new("INFER.X", arguments).keys().map(|keys| keys.len()).unwrap_err().to_string();
    assert_eq!(keys(&[b"two", b"a"]), "numkeys is not a number");
    assert_eq!(keys(&[b"-1", b"a"]), "numkeys is negative");
    assert_eq!(keys(&[b"3", b"a", b"b"]), "numkeys is 3, but the number of arguments after it is 2");
    assert!(keys(&[b"99999999999999999999", b"a"]).ends_with("the number of arguments after it is 1"));
}

#[test]
fn a_count_has_bounds_of_its_own() {
    let arguments: &[&[u8]] = &[b"0", b"a"];
    assert_eq!(
        Args::new("INFER.X", arguments).counted("count", 1, 8).unwrap_err().to_string(),
        "count must be from 1 to 8"
    );
}

#[test]
fn options_are_read_without_case_and_only_once() {
    let mut args = Args::new("INFER.X", &[b"CtX", b"mlock", b"ctx"]);
    assert_eq!(args.option().unwrap().unwrap().as_str(), "CTX");
    assert_eq!(args.option().unwrap().unwrap().as_str(), "MLOCK");
    assert_eq!(args.option().unwrap_err().to_string(), "option CTX is given twice");
    assert_eq!(args.option(), Ok(None));
}

#[test]
fn an_unknown_option_is_shown_in_printable_ascii() {
    let shown = |bytes: &[u8]| Args::new("INFER.X", &[bytes]).option().unwrap().unwrap().unknown().to_string();
    assert_eq!(shown(b"bogus"), "unknown option 'BOGUS'");
    assert_eq!(shown(b"a\r\n'\"\xff%"), "unknown option 'A?????%'");
    assert_eq!(shown(&[b'x'; 500]), format!("unknown option '{}'", "X".repeat(32)));
}

proptest! {
    #[test]
    fn every_integer_within_the_bounds_is_read_back(value in -1000_i64..=1000) {
        prop_assert_eq!(one(value.to_string().as_bytes(), |args| args.integer("N", -1000_i64, 1000)), Ok(value));
    }

    #[test]
    fn no_error_repeats_a_control_or_non_ascii_character(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let option = Args::new("INFER.X", &[&bytes]).option().unwrap().unwrap();
        prop_assert!(option.unknown().to_string().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
}
