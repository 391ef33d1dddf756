// An agent with OpenTelemetry for Node, whose exporter sends OTLP as JSON. Sends to OTLP_ENDPOINT; prints what it sent, as JSON.
const { context, trace, SpanKind, SpanStatusCode } = require('@opentelemetry/api')
const { OTLPTraceExporter } = require('@opentelemetry/exporter-trace-otlp-http')
const { resourceFromAttributes } = require('@opentelemetry/resources')
const { RandomIdGenerator, SimpleSpanProcessor, TracerProvider } = require('@opentelemetry/sdk-trace')

// Random ids, but the first is above 2^63 and no number of JavaScript.
class Ids extends RandomIdGenerator {
  constructor () {
    super()
    const random = this.generateSpanId
    let made = 0
    this.generateSpanId = () => made++ ? random() : 'fedcba9876543211'
  }
}

const provider = new TracerProvider({
  idGenerator: new Ids(),
  resource: resourceFromAttributes({ 'service.name': 'otel-json', 'deployment.environment.name': 'test' }),
  spanProcessors: [new SimpleSpanProcessor({ exporter: new OTLPTraceExporter({ url: process.env.OTLP_ENDPOINT }) })]
})
const tracer = provider.getTracer('app')
// A second in the past: a search up to now does not find spans that start in the future.
const second = Math.floor(Date.now() / 1000) - 10
const sent = {}

// Within a second of now, to the nanosecond.
function span (key, name, parent, [start, end], attributes, work = () => {}) {
  const above = parent ? trace.setSpan(context.active(), parent) : context.active()
  const made = tracer.startSpan(name, { kind: SpanKind.INTERNAL, startTime: [second, start], attributes }, above)
  const { traceId, spanId } = made.spanContext()
  sent[key] = { traceId, spanId, start: `${second}${String(start).padStart(9, '0')}`, duration: end - start }
  work(made)
  made.end([second, end])
  return made
}

const text = (role, content, more = []) => ({ role, parts: [{ type: 'text', content }, ...more] })
const agent = span('agent', 'invoke_agent weather_agent', null, [1, 900_000_001], { 'gen_ai.operation.name': 'invoke_agent', 'gen_ai.conversation.id': 'conv-js' })
span('chat', 'chat gpt-4.1', agent, [100_000_003, 300_000_005], {
  'gen_ai.operation.name': 'chat',
  'gen_ai.provider.name': 'openai',
  'gen_ai.response.model': 'gpt-4.1-2026',
  'gen_ai.request.temperature': 0.5,
  'gen_ai.usage.input_tokens': 12,
  'gen_ai.usage.output_tokens': 7,
  'gen_ai.response.finish_reasons': ['tool_calls'],
  'gen_ai.input.messages': JSON.stringify([text('user', 'Weather in Zürich? ☔')]),
  'gen_ai.output.messages': JSON.stringify([text('assistant', 'Let me look.', [{ type: 'tool_call', id: 'c1', name: 'weather', arguments: { city: 'Zürich' } }])])
})
span('tool', 'execute_tool weather', agent, [400_000_007, 500_000_009], {
  'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': 'weather', 'gen_ai.tool.call.id': 'c1', 'gen_ai.tool.call.arguments': '{"city":"Zürich"}'
}, made => {
  made.recordException(new TypeError('no such city'))
  made.setStatus({ code: SpanStatusCode.ERROR, message: 'no such city' })
})

provider.shutdown().then(() => console.log(JSON.stringify({ app: 'otel-json', sent })))
