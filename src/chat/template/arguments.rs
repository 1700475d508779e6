//! A call's arguments matched to a Python signature: by position or by name.

use minijinja::value::{Kwargs, Rest, ValueOrKwargs};
use minijinja::{Error, ErrorKind, Value};

/// What a call gave for each of `names`.
///
/// # Errors
/// Too many arguments, or a name that isn't in the signature.
pub fn bind<const N: usize>(names: [&str; N], given: Rest<ValueOrKwargs>) -> Result<[Option<Value>; N], Error> {
    let mut bound = [const { None }; N];
    let mut slots = bound.iter_mut();
    for value in given.into_values() {
        if value.is_kwargs() {
            let named = Kwargs::try_from(value)?;
            let rest = &names[N - slots.len()..];
            for (slot, name) in slots.by_ref().zip(rest) {
                *slot = named.get(name)?;
            }
            named.assert_all_used()?;
        } else {
            *slots.next().ok_or_else(|| Error::from(ErrorKind::TooManyArguments))? = Some(value);
        }
    }
    Ok(bound)
}

/// A bound argument as the type wanted; without one, or with Python's `None`, the default.
pub fn or<T>(value: Option<Value>, default: T) -> Result<T, Error>
where
    T: TryFrom<Value, Error = Error>,
{
    value.filter(|v| !v.is_none()).map_or(Ok(default), T::try_from)
}
