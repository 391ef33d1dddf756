"""A small support application: a tool loop with a soft error, a propagated error, a retrieval,
evaluations sent before and after their spans. Prints the ids of what it sent, as JSON."""
import datetime
import json
import time

from setup import APP, LLMObs, flush, flush_evaluations

TOOLS = [{"name": n, "description": n.replace("_", " "), "schema": {"type": "object", "properties": {"order_id": {"type": "string"}}}} for n in ("lookup_order", "refund_order")]
SYSTEM = {"role": "system", "content": "You are a support agent."}
QUESTION = {"role": "user", "content": "Please refund order A-17 🙏"}
ids = {}


class UpstreamTimeout(RuntimeError):
    """The stock service did not answer."""


def remember(key):
    ids[key] = LLMObs.export_span()["span_id"]


def ask(key, messages, content="", call=None):
    out = {"role": "assistant", "content": content}
    if call:
        out["tool_calls"] = [{"name": call[0], "arguments": call[1], "tool_id": call[2], "type": "function"}]
    with LLMObs.llm(model_name="gpt-4.1", model_provider="openai", name="chat"):
        remember(key)
        LLMObs.annotate(input_data=list(messages), output_data=[out], tool_definitions=TOOLS, metadata={"temperature": 0.1},
                        metrics={"input_tokens": 100, "output_tokens": 20, "total_tokens": 120, "cache_read_input_tokens": 64})
        time.sleep(0.002)
    messages.append(out)


def use(key, messages, call, result):
    with LLMObs.tool(call[0]):
        remember(key)
        LLMObs.annotate(input_data=call[1], output_data=result)
        time.sleep(0.001)
    text = json.dumps(result)
    messages.append({"role": "tool", "content": text, "tool_results": [{"name": call[0], "result": text, "tool_id": call[2], "type": "tool_result"}]})


def loop():
    """Three decisions of the model, two tools; the first tool's output says that it failed."""
    first, second = ("lookup_order", {"order_id": "A-17"}, "call_1"), ("refund_order", {"order_id": "A-17"}, "call_2")
    with LLMObs.workflow("handle_ticket", session_id=f"session-{APP}"):
        remember("root")
        root = LLMObs.export_span()
        LLMObs.annotate(input_data={"ticket": QUESTION["content"]}, tags={"ticket": f"T-{APP}", "tier": "gold"}, metadata={"channel": "chat"})
        # Arrives before the span that it evaluates.
        LLMObs.submit_evaluation(label="early", metric_type="score", value=0.25, span=root, ml_app=APP, assessment="fail", reasoning="sent before its span")
        flush_evaluations()
        with LLMObs.agent("refund_agent"):
            remember("agent")
            messages = [SYSTEM, QUESTION]
            ask("llm_1", messages, "Let me look.", first)
            use("tool_soft", messages, first, {"isError": True, "content": [{"type": "text", "text": "order service is read-only"}]})
            ask("llm_2", messages, "", second)
            use("tool_ok", messages, second, {"status": "refunded", "amount": 49.9})
            ask("llm_3", messages, "Refunded 49.90 EUR.")
            LLMObs.annotate(input_data=QUESTION["content"], output_data="Refunded 49.90 EUR.")
        LLMObs.annotate(output_data={"reply": "Refunded 49.90 EUR."})
    return root


def error():
    """A tool raises; agent and workflow fail with it."""
    try:
        with LLMObs.workflow("stock_question"):
            remember("error_root")
            root = LLMObs.export_span()
            with LLMObs.agent("stock_agent"):
                remember("error_agent")
                ask("error_llm", [SYSTEM, {"role": "user", "content": "Is X1 in stock?"}], "", ("inventory", {"sku": "X1"}, "call_9"))
                with LLMObs.tool("inventory"):
                    remember("error_tool")
                    LLMObs.annotate(input_data={"sku": "X1"})
                    raise UpstreamTimeout("inventory service timed out for X1")
    except UpstreamTimeout:
        return root


def rag():
    with LLMObs.workflow("ask_manual"):
        root = LLMObs.export_span()
        with LLMObs.retrieval("search"):
            remember("retrieval")
            LLMObs.annotate(input_data="reset?", output_data=[{"id": "doc-1", "name": "reset.md", "text": "Hold the button for 5 s.", "score": 0.91}, {"id": "doc-2", "name": "led.md", "text": "Green is good.", "score": 0.42}])
        LLMObs.annotate(input_data="How do I reset it?", output_data="Hold the button.")
    return root


def rfc3339(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


started = time.time()
loop_root, error_root, rag_root = loop(), error(), rag()
flush()
LLMObs.submit_evaluation(label="faithfulness", metric_type="score", value=0.9, span={"trace_id": loop_root["trace_id"], "span_id": ids["llm_3"]}, ml_app=APP, assessment="pass", reasoning="grounded")
LLMObs.submit_evaluation(label="resolved", metric_type="boolean", value=True, span_with_tag_value={"tag_key": "ticket", "tag_value": f"T-{APP}"}, ml_app=APP)
flush()
print(json.dumps({"app": APP, "session": f"session-{APP}", "traces": {"loop": loop_root["trace_id"], "error": error_root["trace_id"], "rag": rag_root["trace_id"]},
                  "spans": ids, "counts": {"loop": 7, "error": 4, "rag": 2}, "from": rfc3339(started - 5), "to": rfc3339(time.time() + 5)}))
