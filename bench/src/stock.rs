//! The stock library: arrow-flight's own server and client at their defaults, with the message limit raised as they ask for. The
//! server keeps its batches in memory, so it does nothing but encode and send.

use crate::{
    data,
    measure::{Sample, timed},
};
use anyhow::Result;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightClient, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
    encode::FlightDataEncoderBuilder,
    error::FlightError,
    flight_service_server::{FlightService, FlightServiceServer},
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

#[derive(Debug)]
struct Stock {
    batches: Vec<arrow_array::RecordBatch>,
}

type Answer<T> = Result<Response<BoxStream<'static, Result<T, Status>>>, Status>;

fn missing<T>() -> Result<T, Status> {
    Err(Status::unimplemented("the stock server only answers DoGet"))
}

#[tonic::async_trait]
impl FlightService for Stock {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;

    /// The ticket is the number of batches.
    async fn do_get(&self, request: Request<Ticket>) -> Answer<FlightData> {
        let text = String::from_utf8_lossy(&request.get_ref().ticket).into_owned();
        let count: usize = text
            .parse()
            .map_err(|_| Status::invalid_argument("the ticket is a number of batches"))?;
        let kept = self.batches.clone();
        let batches =
            futures::stream::iter((0..count).map(move |k| Ok::<_, FlightError>(kept[k % kept.len()].clone())));
        let encoded = FlightDataEncoderBuilder::new().build(batches).map_err(Status::from);
        Ok(Response::new(encoded.boxed()))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Answer<HandshakeResponse> {
        missing()
    }
    async fn list_flights(&self, _: Request<Criteria>) -> Answer<FlightInfo> {
        missing()
    }
    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        missing()
    }
    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        missing()
    }
    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        missing()
    }
    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Answer<PutResult> {
        missing()
    }
    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Answer<FlightData> {
        missing()
    }
    async fn do_action(&self, _: Request<Action>) -> Answer<arrow_flight::Result> {
        missing()
    }
    async fn list_actions(&self, _: Request<Empty>) -> Answer<ActionType> {
        missing()
    }
}

/// Serves until killed.
pub(crate) async fn serve() -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    drop(listener);
    println!("ready http://{address}");
    let service = FlightServiceServer::new(Stock {
        batches: data::distinct(),
    });
    tonic::transport::Server::builder()
        .add_service(service)
        .serve(address)
        .await?;
    Ok(())
}

/// A stock client, connected; the server may still be on its way to its port.
pub(crate) async fn client(address: &str) -> Result<FlightClient> {
    let endpoint = Channel::from_shared(address.to_owned())?;
    for _ in 0..200 {
        if let Ok(channel) = endpoint.connect().await {
            let inner = arrow_flight::flight_service_client::FlightServiceClient::new(channel)
                .max_decoding_message_size(64 << 20);
            return Ok(FlightClient::new_from_inner(inner));
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    anyhow::bail!("the stock server at {address} never answered")
}

/// Reads and decodes `count` batches.
pub(crate) async fn get(client: &mut FlightClient, server: u32, count: usize) -> Result<Sample> {
    let work = async {
        let mut stream = client.do_get(Ticket::new(count.to_string())).await?;
        let (mut rows, mut bytes) = (0, 0);
        while let Some(batch) = stream.try_next().await? {
            rows += batch.num_rows();
            bytes += batch.num_rows() * data::ROW_BYTES;
        }
        anyhow::ensure!(rows == count * data::ROWS, "{rows} rows of {count} batches");
        Ok(bytes)
    };
    let (bytes, wall, cpu) = timed(server, work).await?;
    Ok(Sample {
        amount: bytes as f64,
        seconds: wall.as_secs_f64(),
        cpu,
    })
}
