//! Tables on the scheduler: their scans can be sliced, and what is inserted into them is staged by many tasks and published by one.

use crate::{
    PublishExec, StageExec, codec, scan,
    wire::{self, TargetForm, WriteForm},
};
use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::{Session, TableProvider},
    common::{Result, internal_err, not_impl_err},
    datasource::TableType,
    logical_expr::{Expr, TableProviderFilterPushDown, dml::InsertOp},
    physical_plan::{ExecutionPlan, coalesce_partitions::CoalescePartitionsExec},
};
use forebay_client::SessionOptions;
use forebay_datafusion::{ForebayPartitioned, ForebayScan, ForebayTable};
use std::sync::Arc;

/// A table of ours on the scheduler.
#[derive(Debug)]
pub(crate) struct Distributed(Kind);

#[derive(Debug)]
enum Kind {
    Dataset(ForebayTable),
    Partitioned(ForebayPartitioned),
}

impl Distributed {
    pub(crate) fn dataset(table: ForebayTable) -> Self {
        Self(Kind::Dataset(table))
    }

    pub(crate) fn partitioned(table: ForebayPartitioned) -> Self {
        Self(Kind::Partitioned(table))
    }

    fn inner(&self) -> &dyn TableProvider {
        match &self.0 {
            Kind::Dataset(table) => table,
            Kind::Partitioned(table) => table,
        }
    }
}

#[async_trait]
impl TableProvider for Distributed {
    fn schema(&self) -> SchemaRef {
        self.inner().schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.inner().supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = self.inner().scan(state, projection, filters, limit).await?;
        match plan.downcast_ref::<ForebayScan>() {
            Some(scan) => scan::dressed(scan),
            None => internal_err!("{} is no scan that several machines can share", plan.name()),
        }
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Kind::Dataset(table) = &self.0 else {
            return not_impl_err!("INSERT INTO a table PARTITIONED BY folders on a cluster; DataFusion alone does it");
        };
        let schema = table.schema();
        // All runs of all tasks take part in one session by its token; it begins with the first of them.
        let options = SessionOptions {
            token: Some(format!("ballista-{}", ballista_core::ids::new_instance_id())),
            ..table.inserting(insert_op, &input.schema())?
        };
        let form = TargetForm {
            server: codec::server(table.client()),
            path: table.path().to_owned(),
            schema: wire::schema_bytes(&schema)?,
            write: WriteForm::of(&options),
        };
        let client = table.client().clone();
        let staged = Arc::new(StageExec::new(client.clone(), form.clone(), input));
        let gathered = Arc::new(CoalescePartitionsExec::new(staged));
        Ok(Arc::new(PublishExec::new(client, form, gathered)))
    }
}
