// A small agent with the JavaScript SDK: a model call that asks for a tool, a tool that fails, a retrieval, an
// evaluation. Prints the ids of what it sent, as JSON.
//
// Without an Agent the SDK sends to https hosts of Datadog only: those requests, as the SDK made them, are led to
// the receiver. Nothing else of the SDK is touched.
const http = require('node:http')
const https = require('node:https')

const mode = process.env.SDK_MODE
if (mode === 'agentless') {
  const receiver = new URL(process.env.RECEIVER)
  https.request = ({ agent, host, ...options }, done) =>
    http.request({ ...options, protocol: receiver.protocol, hostname: receiver.hostname, port: receiver.port }, done)
}

const app = `js-${mode}`
const tracer = require('dd-trace').init({ service: 'sdk-tests', env: 'test', llmobs: { mlApp: app }, plugins: false })
const llmobs = tracer.llmobs
const ids = {}
const remember = (key, span) => { ids[key] = llmobs.exportSpan(span) }

class UpstreamTimeout extends Error {}

function turn () {
  llmobs.trace({ kind: 'agent', name: 'weather_agent', sessionId: 'js-session' }, span => {
    remember('agent', span)
    llmobs.trace({ kind: 'llm', name: 'chat', modelName: 'gpt-4.1', modelProvider: 'openai' }, span => {
      remember('llm', span)
      llmobs.annotate(span, {
        inputData: [{ role: 'user', content: 'Weather in Zürich? ☔' }],
        outputData: [{ role: 'assistant', content: '', toolCalls: [{ name: 'weather', arguments: { city: 'Zürich' }, toolId: 'call_1', type: 'function' }] }],
        metadata: { temperature: 0.2 },
        metrics: { inputTokens: 12, outputTokens: 7, totalTokens: 19 },
        tags: { tier: 'gold' }
      })
    })
    try {
      llmobs.trace({ kind: 'tool', name: 'weather' }, span => {
        remember('tool', span)
        llmobs.annotate(span, { inputData: { city: 'Zürich' } })
        throw new UpstreamTimeout('weather service timed out')
      })
    } catch {}
    llmobs.trace({ kind: 'retrieval', name: 'search' }, span => {
      remember('retrieval', span)
      llmobs.annotate(span, { inputData: 'rain', outputData: [{ text: 'Take a coat.', name: 'rain.md', id: 'd1', score: 0.5 }] })
    })
    // Nothing is annotated: both sides are sent empty.
    llmobs.trace({ kind: 'task', name: 'nothing' }, span => remember('task', span))
    llmobs.annotate(span, { inputData: 'Weather?', outputData: 'unknown' })
  })
  llmobs.submitEvaluation(ids.llm, { label: 'helpful', metricType: 'score', value: 0.25, mlApp: app, timestampMs: Date.now() })
}

const from = new Date(Date.now() - 5000).toISOString()
turn()
// The writers send once a second, and what is left when the process ends.
setTimeout(() => {
  llmobs.flush()
  setTimeout(() => {
    console.log(JSON.stringify({ app, ids, from, to: new Date(Date.now() + 5000).toISOString() }))
    process.exit(0)
  }, 700)
}, 500)
