//! Tokens (`%h`) and environment variables (`${HOME}`) in the values of OpenSSH's configuration, as `ssh_config(5)` has
//! them.

/// What tokens stand for.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    /// `%d`: home directory of the local user.
    pub(super) home: String,
    /// `%n`: host as the user named it.
    pub(super) alias: String,
    /// `%h`: name or address that is connected to.
    pub(super) host: String,
    /// `%p`.
    pub(super) port: u16,
    /// `%r`: user on the host.
    pub(super) user: String,
    /// `%u`: local user.
    pub(super) local_user: String,
    /// `%i`: number of the local user.
    pub(super) uid: u32,
    /// `%l`; up to its first dot it is `%L`.
    pub(super) local_host: String,
    /// `%j`: jump hosts, empty without one.
    pub(super) jump: String,
    /// `%k`: name of the host in files of known hosts.
    pub(super) known_as: String,
}

impl Tokens {
    /// Replaces tokens and environment variables.
    ///
    /// # Errors
    /// For an unknown token, or a variable without a value. OpenSSH refuses these too.
    pub(super) fn expand_all(&self, text: &str) -> Result<String, String> {
        self.expand(text, true)
    }

    /// Replaces tokens, but not `${…}`, because a shell runs the command.
    ///
    /// # Errors
    /// For an unknown token.
    pub(super) fn expand_command(&self, text: &str) -> Result<String, String> {
        self.expand(text, false)
    }

    fn expand(&self, text: &str, with_variables: bool) -> Result<String, String> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['%', '$']) {
            expanded.push_str(&rest[..at]);
            let (sign, after) = (&rest[at..=at], &rest[at + 1..]);
            if sign == "%" {
                let token = after.chars().next().ok_or_else(|| format!("{text:?} ends with \"%\""))?;
                expanded.push_str(&self.value(token).ok_or_else(|| {
                    format!("edgepipe does not support the token \"%{token}\" in {text:?}; write the value instead")
                })?);
                rest = &after[token.len_utf8()..];
            } else if let Some(braced) = after.strip_prefix('{').filter(|_| with_variables) {
                let (name, after) =
                    braced.split_once('}').ok_or_else(|| format!("\"${{\" is not closed in {text:?}"))?;
                expanded.push_str(&std::env::var(name).map_err(|_| {
                    format!("the environment variable {name} in {text:?} is not set; set it, or write the value instead")
                })?);
                rest = after;
            } else {
                expanded.push_str(sign);
                rest = after;
            }
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    fn value(&self, token: char) -> Option<String> {
        Some(match token {
            '%' => "%".to_owned(),
            'd' => self.home.clone(),
            'h' => self.host.clone(),
            'i' => self.uid.to_string(),
            'j' => self.jump.clone(),
            'k' => self.known_as.clone(),
            'L' => self.local_host.split('.').next().unwrap_or_default().to_owned(),
            'l' => self.local_host.clone(),
            'n' => self.alias.clone(),
            'p' => self.port.to_string(),
            'r' => self.user.clone(),
            'u' => self.local_user.clone(),
            _ => return None,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::ssh) fn tokens() -> Tokens {
        Tokens {
            home: "/home/anna".to_owned(),
            alias: "shelf".to_owned(),
            host: "shelf.lab".to_owned(),
            port: 2222,
            user: "nvidia".to_owned(),
            local_user: "anna".to_owned(),
            uid: 1000,
            local_host: "host.lab.example".to_owned(),
            jump: "gate".to_owned(),
            known_as: "shelf".to_owned(),
        }
    }

    #[test]
    fn tokens_and_variables_are_replaced() {
        for (text, expected) in [
            ("%d/.ssh/%h-%p-%r-%u-%n", "/home/anna/.ssh/shelf.lab-2222-nvidia-anna-shelf"),
            ("%L %l %i %j %k", "host host.lab.example 1000 gate shelf"),
            ("100%%%h", "100%shelf.lab"),
            ("${CARGO_PKG_NAME}/$HOME$", "boards/$HOME$"),
            ("é%%é", "é%é"),
        ] {
            assert_eq!(tokens().expand_all(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(tokens().expand_command("nc ${X} %h").as_deref(), Ok("nc ${X} shelf.lab"));
    }

    #[test]
    fn what_cannot_be_replaced_is_refused() {
        for (text, expected) in [
            ("%", "ends with"),
            ("%C", "the token \"%C\""),
            ("%é", "the token \"%é\""),
            ("${EDGEPIPE_NO_SUCH_VARIABLE}", "EDGEPIPE_NO_SUCH_VARIABLE"),
            ("${HOME", "not closed"),
        ] {
            let error = tokens().expand_all(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
