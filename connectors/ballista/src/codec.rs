//! Between bytes and tables, scans, writes. What is not ours is Ballista's own codec's.

use crate::{
    PublishExec, StageExec,
    scan::{self, SlicedScan},
    table::Distributed,
    wire::{self, NodeForm, ScanForm, TableForm, TargetForm, WriteForm},
};
use ballista_core::serde::{BallistaLogicalExtensionCodec, BallistaPhysicalExtensionCodec};
use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::TableProvider,
    common::{DataFusionError, Result, TableReference, internal_err, not_impl_err, plan_err},
    datasource::file_format::FileFormatFactory,
    execution::TaskContext,
    logical_expr::{Extension, LogicalPlan},
    physical_plan::{ExecutionPlan, limit::LocalLimitExec},
};
use datafusion_proto::{
    logical_plan::LogicalExtensionCodec,
    physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension},
};
use forebay_client::{Client, ReadOptions};
use forebay_datafusion::{FORMAT, ForebayFormatFactory, ForebayPartitioned, ForebayScan, ForebayTable, ForebayUrl};
use std::sync::Arc;

/// Carries tables, scans and writes of one server between the processes of a cluster.
#[derive(Debug)]
pub struct ForebayCodec {
    client: Client,
    /// The server, as plans name it: host and port.
    server: String,
    logical: BallistaLogicalExtensionCodec,
    physical: BallistaPhysicalExtensionCodec,
}

impl ForebayCodec {
    /// The codec of a process that reaches the server by `client`. All processes of a cluster name it by the same host and port.
    pub fn new(client: Client) -> Self {
        Self {
            server: server(&client),
            client,
            logical: BallistaLogicalExtensionCodec::default(),
            physical: BallistaPhysicalExtensionCodec::default(),
        }
    }

    /// The client, where it is the one that a plan means.
    fn client_of(&self, server: &str) -> Result<Client> {
        match server == self.server {
            true => Ok(self.client.clone()),
            false => plan_err!(
                "a plan is of the server {server}, and this process was given {}",
                self.server
            ),
        }
    }

    fn target(&self, form: TargetForm) -> Result<(Client, TargetForm)> {
        Ok((self.client_of(&form.server)?, form))
    }
}

/// Host and port of a client's server.
pub(crate) fn server(client: &Client) -> String {
    ForebayUrl::root_of(client.url()).map_or_else(|_| client.url().to_owned(), |url| url.authority().to_owned())
}

impl LogicalExtensionCodec for ForebayCodec {
    fn try_decode(&self, buf: &[u8], inputs: &[LogicalPlan], ctx: &TaskContext) -> Result<Extension> {
        self.logical.try_decode(buf, inputs, ctx)
    }

    fn try_encode(&self, node: &Extension, buf: &mut Vec<u8>) -> Result<()> {
        self.logical.try_encode(node, buf)
    }

    fn try_decode_table_provider(
        &self,
        buf: &[u8],
        table_ref: &TableReference,
        schema: SchemaRef,
        ctx: &TaskContext,
    ) -> Result<Arc<dyn TableProvider>> {
        Ok(match wire::decode(buf)? {
            None => self.logical.try_decode_table_provider(buf, table_ref, schema, ctx)?,
            Some(TableForm::Dataset {
                server,
                path,
                version,
                write,
            }) => {
                let read = ReadOptions {
                    version,
                    ..ReadOptions::default()
                };
                let table = ForebayTable::create(self.client_of(&server)?, &path, schema);
                Arc::new(Distributed::dataset(table.reading(read).writing(write.options()?)))
            }
            Some(TableForm::Partitioned { server, path, keys }) => Arc::new(Distributed::partitioned(
                ForebayPartitioned::create(self.client_of(&server)?, &path, &schema, &keys)?,
            )),
        })
    }

    fn try_encode_table_provider(
        &self,
        table_ref: &TableReference,
        node: Arc<dyn TableProvider>,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        let any: &dyn std::any::Any = node.as_ref();
        let server = self.server.clone();
        if let Some(table) = any.downcast_ref::<ForebayTable>() {
            let ReadOptions {
                version, session, from, ..
            } = table.read_options();
            if table.is_following() || session.is_some() || from.is_some() {
                return not_impl_err!(
                    "{table_ref}: a table without an end, of a session, or from a resume token is not read by several machines"
                );
            }
            return wire::encode(
                &TableForm::Dataset {
                    server,
                    path: table.path().to_owned(),
                    version: *version,
                    write: WriteForm::of(table.write_options()),
                },
                buf,
            );
        }
        if let Some(table) = any.downcast_ref::<ForebayPartitioned>() {
            return wire::encode(
                &TableForm::Partitioned {
                    server,
                    path: table.path().to_string(),
                    keys: table.keys().map(str::to_owned).collect(),
                },
                buf,
            );
        }
        self.logical.try_encode_table_provider(table_ref, node, buf)
    }

    fn try_decode_file_format(&self, buf: &[u8], ctx: &TaskContext) -> Result<Arc<dyn FileFormatFactory>> {
        self.logical.try_decode_file_format(buf, ctx)
    }

    fn try_encode_file_format(&self, buf: &mut Vec<u8>, node: Arc<dyn FileFormatFactory>) -> Result<()> {
        let any: &dyn std::any::Any = node.as_ref();
        if any.is::<ForebayFormatFactory>() {
            return not_impl_err!(
                "COPY … TO … STORED AS {FORMAT} on a cluster: INSERT INTO a table, or COPY by DataFusion alone"
            );
        }
        self.logical.try_encode_file_format(buf, node)
    }
}

impl PhysicalExtensionCodec for ForebayCodec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        ctx: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(form) = wire::decode(buf)? else {
            return self.physical.try_decode(buf, inputs, ctx, converter);
        };
        Ok(match (form, inputs) {
            (NodeForm::Scan(form), []) => {
                let (client, limit) = (self.client_of(&form.server)?, form.limit);
                let scan = Arc::new(ForebayScan::new(client, form.scanned()?));
                match limit {
                    Some(limit) => Arc::new(LocalLimitExec::new(scan, limit)),
                    None => scan,
                }
            }
            (NodeForm::Stage(form), [input]) => {
                let (client, form) = self.target(form)?;
                Arc::new(StageExec::new(client, form, Arc::clone(input)))
            }
            (NodeForm::Publish(form), [input]) => {
                let (client, form) = self.target(form)?;
                Arc::new(PublishExec::new(client, form, Arc::clone(input)))
            }
            (form, inputs) => return internal_err!("{form:?} with {} inputs", inputs.len()),
        })
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        if let Some(SlicedScan { server, scanned, limit }) = scan::sliced(node.as_ref())? {
            return wire::encode(&NodeForm::Scan(ScanForm::of(&server, &scanned, limit)?), buf);
        }
        if let Some(stage) = node.downcast_ref::<StageExec>() {
            return wire::encode(&NodeForm::Stage(stage.form().clone()), buf);
        }
        if let Some(publish) = node.downcast_ref::<PublishExec>() {
            return wire::encode(&NodeForm::Publish(publish.form().clone()), buf);
        }
        if node.is::<ForebayScan>() {
            return Err(DataFusionError::Internal(
                "a scan that was not made to be sliced".to_owned(),
            ));
        }
        self.physical.try_encode(node, buf, converter)
    }
}
