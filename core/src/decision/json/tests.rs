use super::*;
use proptest::prelude::*;

fn error(doc: &str) -> String {
    parse_object(doc.as_bytes()).expect_err(doc).to_string()
}

#[test]
fn members_of_an_object_are_found_with_their_values_as_written() {
    let doc = br#" { "a" : [1, {"b":"]}"}] ,"c\u0064":"x\"y" , "e":{} } "#;
    let found = parse_object(doc).unwrap();
    let pairs: Vec<_> = found.iter().map(|m| (m.key().into_owned(), m.value)).collect();
    assert_eq!(
        pairs,
        [("a".into(), r#"[1, {"b":"]}"}]"#), ("cd".into(), r#""x\"y""#), ("e".into(), "{}")]
    );
    let text = std::str::from_utf8(trim(doc)).unwrap();
    assert_eq!(members(text).collect::<Vec<_>>(), found);
}

#[test]
fn what_is_wrong_is_said_with_the_place() {
    insta::assert_snapshot!(
        [r#"{"a":1"#, r#"{"a":1,}"#, r#"{"a":01}"#, r#"{"a":tru}"#, "[1]", r#"{"a":1} x"#, "{\"a\":\"\n\"}", r#"{"a":"\ud800"}"#, r#"{"a":{"b":1,"\u0062":2}}"#, ""]
            .map(error).join("\n"),
        @r#"
    ends at byte 6, in the middle of a value
    expected the name of a member, in quotes at byte 7
    expected , or } in an object at byte 6
    expected true, false or null at byte 5
    expected an object at byte 0
    something follows the end of the document at byte 8
    a control character in a string at byte 6
    half of a surrogate pair at byte 6
    the name "b" stands twice in one object, the second time at byte 12
    ends at byte 0, in the middle of a value
    "#
    );
    assert_eq!(check(b"{\"a\":\"\xff\"}"), Err(JsonError::Utf8(6)));
    let deep = "[".repeat(200) + &"]".repeat(200);
    assert_eq!(check(deep.as_bytes()), Err(JsonError::TooDeep(128)));
}

#[test]
fn a_repeat_among_many_names_is_found() {
    let many: Vec<String> = (0..40).map(|i| format!("\"k{i}\":{i}")).collect();
    assert!(check(format!("{{{}}}", many.join(",")).as_bytes()).is_ok());
    let repeat = format!("{{{},\"k7\":0}}", many.join(","));
    assert!(
        matches!(check(repeat.as_bytes()), Err(JsonError::DuplicateKey { name, .. }) if name == "k7")
    );
}

#[test]
fn one_walk_finds_what_each_pointer_finds() {
    let doc = r#"{"a":{"b":[10,{"c\u0064":"x"}],"\/":null},"n":{},"b":7}"#;
    let texts =
        ["/a/b/1/cd", "/a", "/a/b", "/a/b/0", "/a/~1", "/b", "/x", "", "/a/b/7", "/n/a", "/b/b"];
    let pointers: Vec<Pointer> = texts.iter().map(|text| Pointer::parse(text).unwrap()).collect();
    let mut found = vec![None; texts.len()];
    let paths: Paths = pointers.iter().cloned().collect();
    paths.walk(doc, &mut |number, value| assert_eq!(found[number].replace(value), None));
    let each: Vec<_> = pointers.iter().map(|pointer| pointer.find(doc)).collect();
    assert_eq!(found, each);
    assert_eq!((each[0], each[4]), (Some("\"x\""), Some("null")));
}

#[test]
fn escapes_are_seen_wherever_they_stand() {
    for len in 0..80 {
        let plain = "x".repeat(len);
        assert_eq!(unescape(&plain), plain);
        for at in 0..len {
            let escaped = format!("{}\\n{}", &plain[..at], &plain[at + 1..]);
            let told = format!("{}\n{}", &plain[..at], &plain[at + 1..]);
            assert_eq!(unescape(&escaped), told);
            let member = Member { name: &escaped, value: "1" };
            assert!(member.is(&told) && !member.is(&plain) && !member.is(&plain[..len - 1]));
        }
    }
}

#[test]
fn pointers_reach_into_objects_and_arrays() {
    let doc = r#"{"a":[{"b/c":{"~":"x"}}],"n":null}"#;
    let find = |p: &str| Pointer::parse(p).unwrap().find(doc);
    assert_eq!(find("/a/0/b~1c/~0"), Some("\"x\""));
    assert_eq!(find("/n"), Some("null"));
    assert_eq!(find(""), Some(doc));
    assert_eq!((find("/a/1"), find("/n/x"), find("/z")), (None, None, None));
    assert_eq!(Pointer::parse("a"), None);
}

fn arbitrary_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<i32>().prop_map(|n| (f64::from(n) / 8.0).into()),
        "[a-z\"\\\\\u{0}-\u{1f}é€😀]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 48, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Into::into),
            prop::collection::btree_map("[a-d\"é]{0,3}", inner, 0..20)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn valid_documents_are_accepted_and_walked_alike(value in arbitrary_json()) {
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        for text in [value.to_string(), pretty] {
            prop_assert_eq!(check(text.as_bytes()), Ok(()));
            prop_assert_eq!(end_of_value(text.as_bytes(), 0), text.len());
            if let serde_json::Value::Object(map) = &value {
                let walked: serde_json::Map<String, serde_json::Value> = members(&text)
                    .map(|m| (m.key().into_owned(), serde_json::from_str(m.value).unwrap())).collect();
                prop_assert_eq!(&walked, map);
            }
        }
    }

    /// A damaged document is accepted only if serde_json accepts it too. (The reverse does not hold:
    /// serde_json takes repeated names.)
    #[test]
    fn damage_is_never_taken_for_json(value in arbitrary_json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut doc = value.to_string().into_bytes();
        let at = at.index(doc.len());
        if cut { doc.truncate(at) } else { doc[at] = byte }
        let ours = check(&doc);
        let theirs = serde_json::from_slice::<&serde_json::value::RawValue>(&doc);
        match ours {
            Ok(()) => prop_assert!(theirs.is_ok()),
            Err(JsonError::DuplicateKey { .. }) => {}
            Err(e) => prop_assert!(theirs.is_err(), "{e}"),
        }
        end_of_value(&doc, 0);
    }

    #[test]
    fn strings_survive_writing_and_reading(text in any::<String>()) {
        let mut out = Vec::new();
        push_string(&mut out, &text);
        let raw = String::from_utf8(out).unwrap();
        prop_assert_eq!(check(raw.as_bytes()), Ok(()));
        prop_assert_eq!(as_str(&raw).unwrap(), text);
    }
}
