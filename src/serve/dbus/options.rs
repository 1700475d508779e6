//! `a{sv}` as the fields that the socket takes as JSON: the same names, the same checks.

use super::refusal::Refusal;
use crate::serve::wire::Fields;
use serde_json::{Value, json};
use std::collections::HashMap;
use zbus::{OwnedVariant, Variant};

/// Options of a call, as they come.
pub type Options = HashMap<String, OwnedVariant>;

pub fn fields(options: &Options) -> Result<Fields, Refusal> {
    options.iter().map(|(name, value)| Ok((name.clone(), json(name, value)?))).collect()
}

fn json(name: &str, value: &Variant<'_>) -> Result<Value, Refusal> {
    Ok(match value {
        Variant::Bool(v) => json!(v),
        Variant::U8(v) => json!(v),
        Variant::I16(v) => json!(v),
        Variant::U16(v) => json!(v),
        Variant::I32(v) => json!(v),
        Variant::U32(v) => json!(v),
        Variant::I64(v) => json!(v),
        Variant::U64(v) => json!(v),
        // What is no number in JSON is refused by name, like everything of a wrong type.
        Variant::F64(v) if v.is_finite() => json!(v),
        Variant::Str(v) => json!(v.as_str()),
        Variant::Variant(v) => json(name, v)?,
        Variant::Array(list) => Value::Array(list.inner().iter().map(|v| json(name, v)).collect::<Result<_, _>>()?),
        _ => return Err(Refusal::BadRequest(format!("`{name}`: a value of type `{}` can't be used here", value.value_signature()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_the_fields_of_the_socket() {
        let options = Options::from([
            ("max_tokens".to_owned(), OwnedVariant::from(5u32)),
            ("temperature".to_owned(), OwnedVariant::from(0.5)),
            ("stop".to_owned(), OwnedVariant::try_from(Variant::new(vec!["a", "b"])).unwrap()),
        ]);
        let fields = fields(&options).unwrap();
        assert_eq!((&fields["max_tokens"], &fields["temperature"], &fields["stop"]), (&json!(5), &json!(0.5), &json!(["a", "b"])));
        let odd = Options::from([("temperature".to_owned(), OwnedVariant::from(f64::NAN))]);
        assert!(matches!(super::fields(&odd), Err(Refusal::BadRequest(words)) if words.starts_with("`temperature`")));
    }
}
