//! The tables of the schema, and the statements that copy their rows from the database `other`. Names come
//! from our own schema, never from the other database.

use rusqlite::Connection;

/// A table of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    name: String,
    columns: Vec<String>,
    /// Its `INTEGER PRIMARY KEY`, by which other tables refer to it.
    key: Option<String>,
    references: Vec<Reference>,
}

/// A column that holds the key of another table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reference {
    column: String,
    parent: String,
    /// Rows go with the row they refer to.
    owned: bool,
}

/// The table everything of a run belongs to.
const ROOT: &str = "runs";

/// Tables of the database `main`, each after those it refers to.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Vec<Table>> {
    let mut statement = connection
        .prepare("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let mut waiting =
        names.into_iter().map(|name| read_one(connection, name)).collect::<Result<Vec<_>, _>>()?;
    let mut sorted: Vec<Table> = Vec::new();
    while !waiting.is_empty() {
        let is_known = |reference: &Reference, of: &Table| {
            reference.parent == of.name || sorted.iter().any(|table| table.name == reference.parent)
        };
        let (ready, rest): (Vec<Table>, Vec<Table>) = waiting
            .into_iter()
            .partition(|table| table.references.iter().all(|reference| is_known(reference, table)));
        if ready.is_empty() {
            // Tables that refer to each other in a circle; the tests of the schema know that there are none.
            return Err(rusqlite::Error::InvalidQuery);
        }
        sorted.extend(ready);
        waiting = rest;
    }
    Ok(sorted)
}

fn read_one(connection: &Connection, name: String) -> rusqlite::Result<Table> {
    let mut statement = connection.prepare("SELECT name, type, pk FROM pragma_table_info(?, 'main')")?;
    let columns = statement.query_map([&name], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, u32>(2)?))
    })?;
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let keys: Vec<&(String, String, u32)> = columns.iter().filter(|(_, _, place)| *place > 0).collect();
    let key = match keys.as_slice() {
        [(column, kind, _)] if kind == "INTEGER" => Some(column.clone()),
        _ => None,
    };
    let mut statement = connection.prepare(
        r#"SELECT "from", "table", on_delete FROM pragma_foreign_key_list(?, 'main') ORDER BY id DESC"#,
    )?;
    let references = statement.query_map([&name], |row| {
        let action: String = row.get(2)?;
        Ok(Reference { column: row.get(0)?, parent: row.get(1)?, owned: action == "CASCADE" })
    })?;
    Ok(Table {
        key,
        references: references.collect::<Result<_, _>>()?,
        columns: columns.into_iter().map(|(column, ..)| column).collect(),
        name,
    })
}

impl Table {
    fn owner(&self) -> Option<&Reference> {
        self.references.iter().find(|reference| reference.owned)
    }

    fn is_owned(&self) -> bool {
        self.name == ROOT || self.owner().is_some()
    }

    fn reference(&self, column: &str) -> Option<&Reference> {
        self.references.iter().find(|reference| reference.column == column)
    }

    /// Which rows of `other` are wanted, called `rows`.
    fn condition(&self) -> String {
        match (self.owner(), &self.key) {
            (Some(owner), _) => {
                format!("rows.{} IN (SELECT old FROM temp.taken_{})", owner.column, owner.parent)
            }
            (None, Some(key)) if self.name == ROOT => {
                format!("rows.{key} IN (SELECT number FROM temp.wanted)")
            }
            (None, Some(key)) => format!("rows.{key} IN (SELECT old FROM temp.taken_{})", self.name),
            // Nothing can refer to it.
            (None, None) => "false".to_owned(),
        }
    }

    pub(super) fn begin(&self) -> Option<String> {
        let name = &self.name;
        self.key
            .as_ref()
            .map(|_| format!("CREATE TEMP TABLE taken_{name} (old INTEGER PRIMARY KEY, new INTEGER)"))
    }

    pub(super) fn end(&self) -> Option<String> {
        self.key.as_ref().map(|_| format!("DROP TABLE temp.taken_{}", self.name))
    }

    /// Notes the wanted rows of a table that belongs to runs.
    pub(super) fn take_owned(&self) -> Option<String> {
        let (name, condition) = (&self.name, self.condition());
        let key = self.key.as_ref().filter(|_| self.is_owned())?;
        Some(format!(
            "INSERT INTO temp.taken_{name} (old) SELECT rows.{key} FROM other.{name} AS rows WHERE {condition}"
        ))
    }

    /// Notes what the wanted rows refer to in tables that runs share.
    pub(super) fn take_shared(&self, tables: &[Table]) -> Vec<String> {
        let (name, condition) = (&self.name, self.condition());
        let is_shared = |parent: &str| tables.iter().any(|table| table.name == parent && !table.is_owned());
        let shared = self.references.iter().filter(|reference| is_shared(&reference.parent));
        shared
            .map(|Reference { column, parent, .. }| {
                format!(
                    "INSERT OR IGNORE INTO temp.taken_{parent} (old) SELECT rows.{column} FROM other.{name} AS rows
                     WHERE rows.{column} IS NOT NULL AND {condition}"
                )
            })
            .collect()
    }

    /// What a column of `rows` is here.
    fn value(&self, column: &str) -> String {
        let parent = match (self.reference(column), &self.key) {
            (Some(reference), _) => &reference.parent,
            (None, Some(key)) if key == column => &self.name,
            (None, _) => return format!("rows.{column}"),
        };
        format!("(SELECT new FROM temp.taken_{parent} WHERE old = rows.{column})")
    }

    /// Copies the wanted rows; the tables it refers to come first.
    pub(super) fn copy(&self) -> String {
        if self.is_owned() { self.copy_owned() } else { self.copy_shared() }
    }

    fn copy_owned(&self) -> String {
        let name = &self.name;
        let numbers = self.key.as_ref().map_or_else(String::new, |key| match self.reference(key) {
            Some(Reference { parent, .. }) => format!(
                "UPDATE temp.taken_{name} SET new =
                     (SELECT parent.new FROM temp.taken_{parent} AS parent WHERE parent.old = taken_{name}.old);"
            ),
            None => format!(
                "UPDATE temp.taken_{name} SET new = old + (SELECT ifnull(max({key}), 0) FROM main.{name});"
            ),
        });
        let values: Vec<String> = self.columns.iter().map(|column| self.value(column)).collect();
        format!(
            "{numbers} INSERT INTO main.{name} ({}) SELECT {} FROM other.{name} AS rows WHERE {}",
            self.columns.join(", "),
            values.join(", "),
            self.condition()
        )
    }

    /// Adds what is not here, and finds the numbers of all.
    fn copy_shared(&self) -> String {
        let (name, condition) = (&self.name, self.condition());
        let Some(key) = &self.key else { return String::new() };
        let content: Vec<&String> = self.columns.iter().filter(|column| *column != key).collect();
        let (names, values): (Vec<&str>, Vec<String>) =
            content.iter().map(|column| (column.as_str(), self.value(column))).unzip();
        let alike: Vec<String> =
            names.iter().zip(&values).map(|(column, value)| format!("own.{column} IS {value}")).collect();
        let (names, values, alike) = (names.join(", "), values.join(", "), alike.join(" AND "));
        format!(
            "INSERT INTO main.{name} ({names}) SELECT {values} FROM other.{name} AS rows
             WHERE {condition} AND NOT EXISTS (SELECT 1 FROM main.{name} AS own WHERE {alike});
             UPDATE temp.taken_{name} SET new = (SELECT own.{key} FROM other.{name} AS rows, main.{name} AS own
                 WHERE rows.{key} = taken_{name}.old AND {alike})"
        )
    }
}
