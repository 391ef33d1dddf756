//! The protocol handler of rmcp. It is written by hand, because tools are data.
//!
//! Real clients require these decisions:
//!
//! * Tools and resources are declared without `listChanged`: a client that sees it opens a
//!   subscription that would never deliver anything.
//! * Prompts and completions are not declared, and their methods return "method not found" rather than
//!   an empty list, because a server that answers must also declare.
//! * The tool list is one page: Gemini CLI reads only the first.
//! * Results are text only. Clients disagree on whether the model sees text or `structuredContent`.
//! * Lists depend on the caller's URL and headers, so only that caller may cache them.

use std::sync::{Arc, LazyLock};

use http::request::Parts;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestMethod,
    CompleteRequestParams, CompleteResult, ContentBlock, DiscoverResult, Implementation,
    InitializeRequestParams, InitializeResult, ListPromptsRequestMethod, ListPromptsResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams,
    ReadResourceResponse, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use crate::tools::{self, Access};

use super::dispatch::Outcome;
use super::instructions::instructions;
use super::selection::{Selection, printable};
use super::{McpServer, Scope, VERSION, resources};

/// How long a client may cache a list, in milliseconds. It changes with a restart only.
const LIST_TTL_MS: u64 = 60_000;

/// The protocol definition of every tool. Built once, because schemas are expensive.
static DEFINITIONS: LazyLock<Vec<Tool>> =
    LazyLock::new(|| tools::all().iter().map(definition).collect());

fn definition(tool: &tools::Tool) -> Tool {
    let annotations = ToolAnnotations::with_title(tool.title).open_world(tool.open_world());
    let annotations = match tool.access {
        Access::Read => annotations
            .read_only(true)
            .destructive(false)
            .idempotent(true),
        Access::Write {
            destructive,
            idempotent,
        } => annotations
            .read_only(false)
            .destructive(destructive)
            .idempotent(idempotent),
    };
    Tool::new(tool.name, tool.description, Arc::new(tool.input_schema()))
        .with_title(tool.title)
        .with_annotations(annotations)
}

/// The protocol definitions of the tools in a selection, in their fixed order.
pub fn definitions(selection: &Selection) -> Vec<Tool> {
    DEFINITIONS
        .iter()
        .filter(|tool| selection.serves(&tool.name))
        .cloned()
        .collect()
}

impl McpServer {
    /// The scope that the HTTP layer added to the request; stdio has the default one.
    fn scope(&self, context: &RequestContext<RoleServer>) -> Scope {
        context
            .extensions
            .get::<Parts>()
            .and_then(|parts| parts.extensions.get::<Arc<Scope>>())
            .map_or_else(|| self.default_scope(), |scope| Scope::clone(scope))
    }

    /// The description of the server for a caller with this selection.
    fn config(&self, selection: &Selection) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .build();
        let implementation = Implementation::new("llmobs-mcp", VERSION)
            .with_title("LLM Observability (Datadog llmobs toolset)");
        ServerConfig::new(capabilities)
            .with_server_info(implementation)
            .with_instructions(instructions(self.upstreams(), selection))
    }
}

/// The transport and the client, for the log and the upstream's user agent. The client's text is
/// sanitized.
fn caller(context: &RequestContext<RoleServer>) -> String {
    let name = |client: Implementation| format!("{}/{}", client.name, client.version);
    let (transport, client) = match context.extensions.get::<Parts>() {
        // An older client sends its name in `initialize`, which later requests without a session do not
        // see; the library then reports its own name. The user agent is the client's.
        Some(parts) => {
            let agent = parts.headers.get(http::header::USER_AGENT);
            let agent = agent
                .and_then(|agent| agent.to_str().ok())
                .and_then(|agent| agent.split_whitespace().next())
                .map(str::to_owned);
            ("mcp http", context.meta.client_info().map(name).or(agent))
        }
        None => ("mcp stdio", context.client_info().map(name)),
    };
    match client {
        Some(client) => format!("{transport}; client {}", printable(&client)),
        None => transport.to_owned(),
    }
}

impl ServerHandler for McpServer {
    fn get_info(&self) -> ServerConfig {
        self.config(&self.default_scope().selection)
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let scope = self.scope(&context);
        context.peer.set_peer_info(request.clone());
        let mut result = self.negotiate_initialize(&request)?;
        result.instructions = self.config(&scope.selection).instructions;
        Ok(result)
    }

    async fn discover(
        &self,
        context: RequestContext<RoleServer>,
    ) -> Result<DiscoverResult, ErrorData> {
        let scope = self.scope(&context);
        Ok(DiscoverResult::from_server_info(
            self.supported_protocol_versions().into_owned(),
            self.config(&scope.selection),
        )
        .with_ttl_ms(LIST_TTL_MS))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let scope = self.scope(&context);
        Ok(
            ListToolsResult::with_all_items(definitions(&scope.selection))
                .with_ttl_ms(LIST_TTL_MS)
                .with_cache_scope(CacheScope::Private),
        )
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let scope = self.scope(&context);
        let caller = caller(&context);
        let arguments = request.arguments.unwrap_or_default();
        let call = self.call(&request.name, arguments, &scope, &caller);
        let outcome = tokio::select! {
            // Dropping the call cancels it, together with its requests.
            () = context.ct.cancelled() => {
                return Err(ErrorData::internal_error("the call was cancelled", None));
            }
            outcome = call => outcome,
        };
        match outcome {
            Outcome::Answer(text) => {
                Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
            }
            Outcome::Failure(text) => {
                Ok(CallToolResult::error(vec![ContentBlock::text(text)]).into())
            }
            Outcome::UnknownTool { message } => Err(ErrorData::invalid_params(message, None)),
        }
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(resources::list())
            .with_ttl_ms(LIST_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        resources::read(self, &self.scope(&context), &request.uri).map(Into::into)
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Err(ErrorData::method_not_found::<ListPromptsRequestMethod>())
    }

    async fn complete(
        &self,
        _request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        Err(ErrorData::method_not_found::<CompleteRequestMethod>())
    }
}
