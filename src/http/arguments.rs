//! The arguments of a request by name: path parameters first, then query arguments, then fields of a form. Claims come from its token.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;

use crate::config::CLAIM;
use crate::grant::token::Token;

/// The arguments of one request. If a name is given several times, the last value counts, as in the servers that pushd replaces.
/// They are in maps, because a route may use many and a client may send very many.
#[derive(Debug, Default)]
pub struct Arguments<'r> {
    path: Vec<(&'r str, String)>,
    query: HashMap<Cow<'r, str>, Cow<'r, str>>,
    form: HashMap<String, String>,
    /// The token that the request shows, once it was checked.
    token: OnceCell<Token>,
}

impl<'r> Arguments<'r> {
    /// The parameters of a path, and the arguments of a query string.
    pub fn new(path: Vec<(&'r str, String)>, query: Option<&'r str>) -> Arguments<'r> {
        let query = query.map(|query| form_urlencoded::parse(query.as_bytes()).collect()).unwrap_or_default();
        Arguments { path, query, form: HashMap::new(), token: OnceCell::new() }
    }

    /// Adds the fields of a form (`application/x-www-form-urlencoded`).
    pub fn add_form(&mut self, body: &[u8]) {
        self.form = form_urlencoded::parse(body).into_owned().collect();
    }

    /// All of them but the fields of a form.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        let query = self.query.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
        query.chain(self.path.iter().map(|(name, value)| (*name, value.as_str())))
    }

    /// Notes the token that the request shows.
    pub fn set_token(&self, token: Token) -> &Token {
        self.token.get_or_init(|| token)
    }

    /// The token that the request shows.
    pub fn token(&self) -> Option<&Token> {
        self.token.get()
    }

    /// An argument of the query.
    pub fn of_query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(AsRef::as_ref)
    }

    /// The value of `name`. That of a claim comes from the token alone, whatever the request says.
    pub fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(claim) = name.strip_prefix(CLAIM) {
            return self.token()?.text(claim).map(Cow::Owned);
        }
        let path = self.path.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        let query = || self.query.get(name).map(AsRef::as_ref);
        let form = || self.form.get(name).map(String::as_str);
        path.or_else(query).or_else(form).map(Cow::Borrowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_parameters_come_first_and_the_last_argument_counts() {
        let mut arguments = Arguments::new(vec![("a", "path".into())], Some("a=query&b=1&b=2+%26&c"));
        arguments.add_form(b"b=form&d=4%20");
        assert_eq!(arguments.value("a").as_deref(), Some("path"));
        assert_eq!(arguments.value("b").as_deref(), Some("2 &"));
        assert_eq!(arguments.value("c").as_deref(), Some(""));
        assert_eq!(arguments.value("d").as_deref(), Some("4 "));
        assert_eq!(arguments.value("e"), None);
    }
}
