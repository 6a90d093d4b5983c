//! PTX text as tokens with line numbers.

/// An error in PTX text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line, from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// Shorthand for parsers.
pub type Result<T> = std::result::Result<T, SyntaxError>;

/// Makes an error.
pub fn error<T>(line: u32, message: impl Into<String>) -> Result<T> {
    Err(SyntaxError { line, message: message.into() })
}

/// The text of a token and its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// A word (opcode, directive, register, number), a string with its quotes, or one character.
    pub text: &'a str,
    /// Line, from 1.
    pub line: u32,
}

impl Token<'_> {
    /// Whether it is a word: neither a string nor punctuation.
    pub fn is_word(&self) -> bool {
        self.text.starts_with(is_part_of_word)
    }
}

fn is_part_of_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '$' | '%' | '.')
}

/// Splits a text; comments and white space separate tokens.
pub fn split(text: &str) -> Result<Vec<Token<'_>>> {
    let mut tokens = Vec::with_capacity(text.len() / 4);
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if first == '\n' {
            line += 1;
            1
        } else if first.is_ascii_whitespace() {
            1
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            let Some(end) = rest.find("*/") else { return error(line, "the comment has no end") };
            line += rest[..end].matches('\n').count() as u32;
            end + 2
        } else if first == '"' {
            let Some(end) = rest[1..].find(['"', '\n']).filter(|end| rest[1 + end..].starts_with('"')) else {
                return error(line, "the string has no end");
            };
            tokens.push(Token { text: &rest[..end + 2], line });
            end + 2
        } else if is_part_of_word(first) {
            let end = rest.find(|character| !is_part_of_word(character)).unwrap_or(rest.len());
            tokens.push(Token { text: &rest[..end], line });
            end
        } else if first.is_ascii_punctuation() {
            tokens.push(Token { text: &rest[..1], line });
            1
        } else {
            return error(line, format!("unexpected character {first:?}"));
        };
        rest = &rest[length..];
    }
    Ok(tokens)
}

/// Reads tokens one after the other.
#[derive(Debug)]
pub struct Tokens<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
}

impl<'a> Tokens<'a> {
    /// All tokens of a text.
    pub fn of(text: &'a str) -> Result<Self> {
        Ok(Self { tokens: split(text)?, next: 0 })
    }

    /// The next token, which stays.
    pub fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).copied()
    }

    /// The line of the next token, or of the last one.
    pub fn line(&self) -> u32 {
        self.peek().or(self.tokens.last().copied()).map_or(1, |token| token.line)
    }

    /// The next token.
    pub fn any(&mut self) -> Result<Token<'a>> {
        let Some(token) = self.peek() else {
            return error(self.line(), "the text ends in the middle of a statement");
        };
        self.next += 1;
        Ok(token)
    }

    /// Takes the next token if it is this one.
    pub fn take(&mut self, text: &str) -> bool {
        let is_it = self.peek().is_some_and(|token| token.text == text);
        self.next += usize::from(is_it);
        is_it
    }

    /// Takes this token.
    pub fn expect(&mut self, text: &str) -> Result<()> {
        let token = self.any()?;
        if token.text == text {
            Ok(())
        } else {
            error(token.line, format!("expected \"{text}\", found \"{}\"", token.text))
        }
    }

    /// Takes a word.
    pub fn word(&mut self) -> Result<&'a str> {
        let token = self.any()?;
        if token.is_word() {
            Ok(token.text)
        } else {
            error(token.line, format!("expected a name or number, found \"{}\"", token.text))
        }
    }

    /// Takes a whole number that is not negative.
    pub fn number(&mut self) -> Result<u64> {
        let line = self.line();
        let word = self.word()?;
        match integer(word) {
            Some(number) => Ok(number),
            None => error(line, format!("expected a number, found \"{word}\"")),
        }
    }

    /// Skips to behind the next `;`.
    pub fn skip_statement(&mut self) -> Result<()> {
        while self.any()?.text != ";" {}
        Ok(())
    }

    /// Skips `{ … }`, which may contain others.
    pub fn skip_braces(&mut self) -> Result<()> {
        self.expect("{")?;
        let mut depth = 1;
        while depth > 0 {
            match self.any()?.text {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }
}

/// An integer as PTX writes it: decimal, `0x…`, `0b…`, or octal with a leading 0, with an optional `U`.
pub fn integer(word: &str) -> Option<u64> {
    let word = word.strip_suffix('U').unwrap_or(word);
    if let Some(digits) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        return u64::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = word.strip_prefix("0b").or_else(|| word.strip_prefix("0B")) {
        return u64::from_str_radix(digits, 2).ok();
    }
    match word.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => u64::from_str_radix(digits, 8).ok(),
        _ => word.parse().ok(),
    }
}
