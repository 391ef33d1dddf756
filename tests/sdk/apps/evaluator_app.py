"""Publishes evaluators, and sends evaluations of every type and feedback, before and after their spans.
Prints the ids of what it sent, as JSON."""
import json
import time

from setup import APP, LLMObs, flush, flush_evaluations

from ddtrace.llmobs import BooleanStructuredOutput, CategoricalStructuredOutput, LLMJudge, ScoreStructuredOutput

NAME = f"{APP}-judged"


def no_model(*_):
    raise AssertionError("publishing calls no model")


def publish(name, provider, output, **more):
    judge = LLMJudge(system_prompt="You are a judge.", user_prompt="Q: {{span_input}} A: {{answer}}", structured_output=output,
                     provider=provider, model="judge-1", client=no_model, **more)
    return LLMObs.publish_evaluator(judge, ml_app=NAME, eval_name=name, variable_mapping={"answer": "span_output"})


urls = [
    publish("sdk_grounded", "openai", BooleanStructuredOutput(description="Is it grounded?", reasoning=True, pass_when=True), model_params={"temperature": 0.0}),
    publish("sdk_quality", "anthropic", ScoreStructuredOutput(description="How good?", min_score=1, max_score=5, min_threshold=3)),
    publish("sdk_tone", "bedrock", CategoricalStructuredOutput(categories={"calm": "Calm", "angry": "Angry"}, pass_values=["calm"])),
]

started = time.time()
with LLMObs.workflow("handle", session_id=f"session-{NAME}", ml_app=NAME):
    root = LLMObs.export_span()
    LLMObs.annotate(input_data="Where is my order?", output_data="On its way.", tags={"order": f"O-{NAME}"})
    by_span = dict(span=root, ml_app=NAME)
    LLMObs.submit_evaluation(label="b_before", metric_type="boolean", value=False, assessment="fail", reasoning="no source", **by_span)
    LLMObs.submit_evaluation(label="s_before", metric_type="score", value=0.5, **by_span)
    LLMObs.submit_evaluation(label="c_tag_before", metric_type="categorical", value="calm", span_with_tag_value={"tag_key": "order", "tag_value": f"O-{NAME}"}, ml_app=NAME)
    flush_evaluations()
flush()
LLMObs.submit_evaluation(label="j_after", metric_type="json", value={"facts": {"found": 2}}, **by_span)
LLMObs.submit_evaluation(label="t_after", metric_type="boolean", value=True, eval_scope="trace", assessment="pass", tags={"judge": "v2"}, metadata={"model": "judge-1"}, **by_span)
LLMObs.submit_evaluation(label="s_tag_after", metric_type="score", value=4, span_with_tag_value={"tag_key": "order", "tag_value": f"O-{NAME}"}, ml_app=NAME)
user = {"id": "user-1", "type": "end_user"}
LLMObs.submit_feedback(label="thumbs", metric_type="boolean", value=True, submitter=user, span=root, ml_app=NAME, assessment="pass")
LLMObs.submit_feedback(label="stars", metric_type="score", value=4, submitter=user, session_id=f"session-{NAME}", ml_app=NAME)
LLMObs.submit_feedback(label="comment", metric_type="text", value="quick and kind", submitter=user, trace_id=root["trace_id"], ml_app=NAME)
flush()
print(json.dumps({"app": NAME, "trace": root["trace_id"], "span": root["span_id"], "urls": urls}))
