//! Headers that the administrator sets and removes by name. All of it goes into the plan.

use std::collections::BTreeMap;

use weir_sdk::{Error, HeaderEdit, Plan, header};

use crate::config::Config;

/// Adds the edits of both directions. An empty value removes the header, but for `Host`, which a request cannot be
/// without.
pub(crate) fn plan(config: &Config, mut plan: Plan) -> Result<Plan, Error> {
    for edit in edits(&config.custom_request_headers)? {
        if edit != HeaderEdit::remove("host") {
            plan = plan.edit_request(edit);
        }
    }
    for edit in edits(&config.custom_response_headers)? {
        plan = plan.edit_response(edit);
    }
    Ok(plan)
}

fn edits(headers: &BTreeMap<String, String>) -> Result<Vec<HeaderEdit>, Error> {
    let edit = |(name, value): (&String, &String)| {
        let name = header::name(name)?;
        if value.is_empty() {
            return Ok(HeaderEdit::remove(&name));
        }
        Ok(HeaderEdit::set(&name, header::value(&name, value)?))
    };
    headers.iter().map(edit).collect()
}
