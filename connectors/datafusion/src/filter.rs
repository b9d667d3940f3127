//! Filters as SQL text that the server understands exactly as DataFusion does here: comparisons of columns and plain literals, with
//! AND, OR, NOT, IS NULL, BETWEEN, IN and LIKE. What has no such text stays with DataFusion.

use datafusion::{
    logical_expr::{Expr, Operator, expr::InList},
    scalar::ScalarValue,
};

/// A filter as text; `None` when it has no exact one.
pub(crate) fn to_sql(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Column(column) => Some(quoted(&column.name)),
        Expr::Literal(value, _) => literal(value),
        Expr::Alias(alias) => to_sql(&alias.expr),
        Expr::Not(inner) => Some(format!("(NOT {})", to_sql(inner)?)),
        Expr::IsNull(inner) => Some(format!("({} IS NULL)", to_sql(inner)?)),
        Expr::IsNotNull(inner) => Some(format!("({} IS NOT NULL)", to_sql(inner)?)),
        Expr::IsTrue(inner) => Some(format!("({} IS TRUE)", to_sql(inner)?)),
        Expr::IsFalse(inner) => Some(format!("({} IS FALSE)", to_sql(inner)?)),
        Expr::BinaryExpr(binary) => {
            let op = operator(binary.op)?;
            Some(format!("({} {op} {})", to_sql(&binary.left)?, to_sql(&binary.right)?))
        }
        Expr::Between(between) => {
            let not = if between.negated { "NOT " } else { "" };
            let (expr, low, high) = (to_sql(&between.expr)?, to_sql(&between.low)?, to_sql(&between.high)?);
            Some(format!("({expr} {not}BETWEEN {low} AND {high})"))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let not = if *negated { "NOT " } else { "" };
            let list: Option<Vec<_>> = list.iter().map(to_sql).collect();
            Some(format!("({} {not}IN ({}))", to_sql(expr)?, list?.join(", ")))
        }
        Expr::Like(like) if like.escape_char.is_none() => {
            let not = if like.negated { "NOT " } else { "" };
            let word = if like.case_insensitive { "ILIKE" } else { "LIKE" };
            Some(format!(
                "({} {not}{word} {})",
                to_sql(&like.expr)?,
                to_sql(&like.pattern)?
            ))
        }
        _ => None,
    }
}

/// Several filters as one text.
pub(crate) fn all_to_sql(filters: &[Expr]) -> Option<String> {
    let texts: Vec<_> = filters.iter().filter_map(to_sql).collect();
    (!texts.is_empty()).then(|| texts.join(" AND "))
}

fn operator(op: Operator) -> Option<&'static str> {
    Some(match op {
        Operator::Eq => "=",
        Operator::NotEq => "<>",
        Operator::Lt => "<",
        Operator::LtEq => "<=",
        Operator::Gt => ">",
        Operator::GtEq => ">=",
        Operator::And => "AND",
        Operator::Or => "OR",
        _ => return None,
    })
}

/// Literals whose text reads as the same value and type family.
fn literal(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Boolean(Some(v)) => Some(v.to_string()),
        ScalarValue::Int8(Some(v)) => Some(v.to_string()),
        ScalarValue::Int16(Some(v)) => Some(v.to_string()),
        ScalarValue::Int32(Some(v)) => Some(v.to_string()),
        // The smallest has no literal: SQL negates its positive, which is too large.
        ScalarValue::Int64(Some(v)) if *v > i64::MIN => Some(v.to_string()),
        ScalarValue::UInt8(Some(v)) => Some(v.to_string()),
        ScalarValue::UInt16(Some(v)) => Some(v.to_string()),
        ScalarValue::UInt32(Some(v)) => Some(v.to_string()),
        ScalarValue::UInt64(Some(v)) => Some(v.to_string()),
        ScalarValue::Float64(Some(v)) if v.is_finite() => Some(format!("{v:?}")),
        ScalarValue::Utf8(Some(v)) | ScalarValue::LargeUtf8(Some(v)) | ScalarValue::Utf8View(Some(v)) => {
            Some(format!("'{}'", v.replace('\'', "''")))
        }
        ScalarValue::Date32(Some(_)) => Some(format!("CAST('{value}' AS DATE)")),
        ScalarValue::Decimal128(Some(_), precision, scale) if *scale >= 0 => {
            Some(format!("CAST('{}' AS DECIMAL({precision}, {scale}))", decimal(value)?))
        }
        _ => None,
    }
}

fn decimal(value: &ScalarValue) -> Option<String> {
    let ScalarValue::Decimal128(Some(digits), _, scale) = value else {
        return None;
    };
    let scale = usize::try_from(*scale).ok()?;
    let sign = if *digits < 0 { "-" } else { "" };
    let text = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, rest) = text.split_at(text.len() - scale);
    Some(if rest.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{rest}")
    })
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{SessionContext, col, ident, lit};

    #[test]
    fn plain_filters_have_a_text() {
        for (expr, text) in [
            (
                col("t.id").gt_eq(lit(7_i64)).and(col("s").eq(lit("o'dd"))),
                r#"(("id" >= 7) AND ("s" = 'o''dd'))"#,
            ),
            (ident("A\"b").is_null(), r#"("A""b" IS NULL)"#),
            (
                col("x").between(lit(-1.5), lit(1e300)),
                r#"("x" BETWEEN -1.5 AND 1e300)"#,
            ),
            (
                col("s").in_list(vec![lit("a"), lit("b")], true),
                r#"("s" NOT IN ('a', 'b'))"#,
            ),
            (col("s").like(lit("a%")), r#"("s" LIKE 'a%')"#),
            (!col("flag").eq(lit(true)), r#"(NOT ("flag" = true))"#),
            (
                col("d").lt(lit(ScalarValue::Date32(Some(365)))),
                r#"("d" < CAST('1971-01-01' AS DATE))"#,
            ),
            (
                col("m").lt(lit(ScalarValue::Decimal128(Some(-5), 15, 2))),
                r#"("m" < CAST('-0.05' AS DECIMAL(15, 2)))"#,
            ),
        ] {
            assert_eq!(to_sql(&expr).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_has_no_exact_text_stays_here() {
        for expr in [
            col("x") + lit(1),
            lit(f64::NAN).eq(col("x")),
            col("x").eq(lit(1.0_f32)),
            lit(i64::MIN).eq(col("x")),
        ] {
            assert_eq!(to_sql(&expr), None, "{expr}");
        }
        let half = [col("x") + lit(1), col("x").gt(lit(1))];
        assert_eq!(all_to_sql(&half).as_deref(), Some("(\"x\" > 1)"));
    }

    #[tokio::test]
    async fn the_text_reads_as_the_same_filter() {
        let ctx = SessionContext::new();
        let rows = "(VALUES (1, 'a', 0.5), (2, NULL, NULL), (3, 'c', 2.5)) AS t(id, s, x)";
        for (filter, count) in [
            ("id >= 2 AND s IS NOT NULL", 1),
            ("x BETWEEN 0.1 AND 3.0", 2),
            ("s IN ('a', 'c') OR id = 2", 3),
        ] {
            let plan = ctx.sql(&format!("SELECT * FROM {rows} WHERE {filter}")).await.unwrap();
            let expr = ctx.parse_sql_expr(filter, plan.schema()).unwrap();
            let sql = format!("SELECT * FROM {rows} WHERE {}", to_sql(&expr).unwrap());
            assert_eq!(ctx.sql(&sql).await.unwrap().count().await.unwrap(), count, "{sql}");
        }
    }
}
