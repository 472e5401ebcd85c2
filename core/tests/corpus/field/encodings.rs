//! Names and values in lists, people's numbers, and encodings.

use serde_json::json;

use super::{Field, base64, entities, hex};
use crate::corpus::{card, grouped, iban, in_fours, percent};

pub fn write(f: &Field) {
    lists(f);
    people(f);
    encoded(f);
}

fn lists(f: &Field) {
    let kind = "lists of names and values";
    f.document(
        kind,
        json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"name": f.k("GET /c<3.d>"), "attributes": [
            {"key": "http.request.header.authorization", "value": {"arrayValue": {"values": [{"stringValue": format!("Token {}", f.s("<12.a>"))}]}}},
            {"key": "db.password", "value": {"stringValue": f.s("<9.a>")}},
            {"key": "server.address", "value": {"stringValue": f.k("db<3.d>.internal")}},
            {"key": "otp", "value": {"intValue": f.s("<6.d>")}}]}]}]}]}),
    );
    for (name, value) in [
        ("Key", "Val"),
        ("name", "value"),
        ("k", "v"),
        ("Name", "Value"),
        ("field", "value"),
        ("param", "val"),
        ("attribute", "values"),
        ("key", "stringValue"),
    ] {
        f.document(
            kind,
            json!({"settings": [{name: "password", value: f.s("<8.a>")}, {name: "host", value: f.k("h<4.d>")}, {name: "client_secret", value: f.s("<14.a>")}]}),
        );
    }
    f.document(kind, json!({"pairs": [["db_password", f.s("<8.a>")], ["region", f.k("eu<4.d>")]]}));
    f.document(kind, json!({"header": ["authorization", format!("Bearer {}", f.s("<5.a>1"))], "n": f.k("n<4.d>")}));
    f.document(kind, json!({"h": [{"x-api-key": f.s("<12.a>")}, {"accept": f.k("a<4.d>")}]}));
    f.document(
        kind,
        json!({"argv": ["app", "--password", f.s("<5.l>"), "--verbose", f.k("x<4.d>")]}),
    );
    f.document(
        kind,
        json!({"argv": ["app", "--secret-key", f.s("<9.a>"), "-v", "--out", f.k("o<4.d>")]}),
    );
    f.document(
        kind,
        json!({"argv": [format!("--token={}", f.s("<7.a>")), format!("--out={}", f.k("o<4.d>"))]}),
    );
    f.document(kind, json!({"cmd": format!("deploy --api-key {} --region {} --client-secret='{}'", f.s("<9.a>"), f.k("r<4.d>"), f.s("<9.a>"))}));
    f.document(kind, json!({"columns": ["id", "email", "password"], "note": f.k("n<4.d>"), "token": [f.s("<10.a>"), f.s("<10.a>")]}));
}

fn people(f: &Field) {
    let kind = "people";
    for by in ["", " ", "-", ".", "\u{a0}", "\u{2009}", "\u{202f}", "\u{2011}"] {
        let number = grouped(&card(&mut f.chance.borrow_mut()), by);
        let input =
            json!({"memo": format!("paid with {} on {}", f.note(number), f.k("2026-11-<2.d>"))});
        f.document(kind, input);
    }
    for i in 0..6 {
        let iban = iban(&mut f.chance.borrow_mut());
        let text = match i {
            0 => iban,
            1 => iban.to_lowercase(),
            2 => in_fours(&iban),
            3 => in_fours(&iban).to_lowercase(),
            4 => in_fours(&iban).replace(' ', "\u{a0}"),
            _ => in_fours(&iban).replace(' ', "-"),
        };
        let input = json!({"transfer": {"text": format!("to {} please", f.note(text)), "ref": f.k("RF<6.d>")}});
        f.document(kind, input);
    }
    f.document(kind, json!({"from": format!("\"Ann Lee\" <{}>", f.s("<3.l>.<5.l>+x@mail.example")), "subject": f.k("Report <4.d>")}));
    f.document(kind, json!({"href": format!("mailto:{}?subject=hi", f.s("<6.l>@mail.example")), "n": f.k("n<4.d>")}));
    f.document(kind, json!({"cal": format!("ATTENDEE;CN=Bob:MAILTO:{}\nUID:{}", f.s("<6.l>@mail.example"), f.k("<8.h>"))}));
    f.document(
        kind,
        json!({"id": format!("acct:{}", f.s("<6.l>@social.example")), "n": f.k("n<4.d>")}),
    );
    f.document(
        kind,
        json!({"employee": format!("SSN {} dept {}", f.s("2<2.d>-4<1.d>-6<3.d>"), f.k("D<4.d>"))}),
    );
    f.document(kind, json!({"ssn": f.s("2<2.d>4<1.d>6<3.d>"), "dept": f.k("D<4.d>")}));
    f.document(kind, json!({"upn": f.s("<6.l>.<5.l>@corp.example"), "tenant": f.k("<8.h>-<4.h>-4<3.h>-8<3.h>-<12.h>")}));
}

fn encoded(f: &Field) {
    let kind = "encodings";
    let body = |f: &Field| json!({"user": "bob", "password": f.s("<9.a>")}).to_string();
    f.document(kind, json!({"b": base64(&body(f)), "n": f.k("n<4.d>")}));
    f.document(kind, json!({"b": base64(&base64(&body(f))), "n": f.k("n<4.d>")}));
    f.document(kind, json!({"b": hex(&body(f)), "n": f.k("n<4.d>")}));
    f.document(kind, json!({"b": hex(&body(f)).to_uppercase(), "n": f.k("n<4.d>")}));
    f.document(kind, json!({"b": percent(&percent(&body(f))), "n": f.k("n<4.d>")}));
    f.document(
        kind,
        json!({"b": format!("q=1&state={}", percent(&percent(&body(f)))), "n": f.k("n<4.d>")}),
    );
    f.document(kind, json!({"b": entities(&body(f)), "n": f.k("n<4.d>")}));
    f.document(
        kind,
        json!({"b": entities(&body(f)).replace("&quot;", "&#34;"), "n": f.k("n<4.d>")}),
    );
    f.document(kind, json!({"b": body(f).replace('"', "\\u0022"), "n": f.k("n<4.d>")}));
    f.document(
        kind,
        json!({"b": format!("{{\"p\\u0061ssword\":\"{}\"}}", f.s("<9.a>")), "n": f.k("n<4.d>")}),
    );
    f.document(kind, json!({"b": format!("x {}", json!(body(f))), "n": f.k("n<4.d>")}));
    f.document(
        kind,
        json!({"b": base64(&format!("a=1&token={}", f.s("<9.a>"))), "n": f.k("n<4.d>")}),
    );
    f.document(kind, json!({"b": format!("data:application/json;base64,{}", base64(&body(f))), "n": f.k("n<4.d>")}));
    f.document(
        kind,
        json!({"b": format!("%7B%22token%22%3A%22{}%22%7D", f.s("<9.a>")), "n": f.k("n<4.d>")}),
    );
    f.document(kind, json!({"b": json!([json!({"secret": f.s("<9.a>")}).to_string()]).to_string(), "n": f.k("n<4.d>")}));
    // What is found at one place stands in another form at a second one.
    let all = |secret: String| {
        json!({"password": secret, "b64": base64(&format!("x {secret} y")), "seen": {format!("u:{secret}:r"): 1},
            "hex": hex(&format!("pw {secret}")), "url": format!("/a/{}", percent(&secret)), "text": format!("the word {secret} was typed"),
            "n": f.k("n<4.d>")})
    };
    for form in ["<6.a>", "<7.a>", "<4.l><2.d>", "<9.a>", "<5.a>!<3.a>"] {
        f.document(kind, all(f.s(form)));
    }
}
