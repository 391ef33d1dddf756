"""Evaluators that the SDK published and evaluations that it sent, read by the tools and by Datadog's API client."""
import json
import urllib.request

import pytest
from datadog_api_client import ApiClient, Configuration
from datadog_api_client.v2.api.agent_observability_api import AgentObservabilityApi
from datadog_api_client.v2.model.llm_obs_custom_eval_config_update_request import LLMObsCustomEvalConfigUpdateRequest

import support


@pytest.fixture(scope="module", params=["agentless", "evp_v2"])
def judged(request, local, home):
    return support.run_app("evaluator_app.py", request.param, local, home)


@pytest.fixture(scope="module")
def tools(mcp):
    return lambda tool, **arguments: json.loads(support.over_http(mcp, tool, arguments))


def test_published_evaluators_are_drafts_in_the_documented_form(judged, tools, call):
    rows = {row["eval_name"]: row for row in call("list_llmobs_evals_by_ml_app", {"ml_app": judged["app"]})["evaluators"]}
    assert {name: row["type"] for name, row in rows.items()} == {"sdk_grounded": "boolean", "sdk_quality": "score", "sdk_tone": "categorical"}
    assert not any(row["enabled"] for row in rows.values())
    grounded = call("get_llmobs_evaluator", {"eval_name": "sdk_grounded"})
    assert grounded["llm_provider"] == {"integration_provider": "openai", "model_name": "judge-1", "temperature": 0.0}
    assert grounded["prompt_template"][1] == {"role": "user", "content": "Q: {{span_input}} A: {{span_output}}"}
    assert grounded["assessment_criteria"] == {"pass_when": True}
    for name, schema in (("sdk_quality", "score_eval"), ("sdk_tone", "categorical_eval")):
        assert tools("get_llmobs_evaluator", eval_name=name)["output_schema"]["name"] == schema, "the SDK publishes it bare"
    assert tools("get_llmobs_evaluator", eval_name="sdk_tone")["llm_provider"]["integration_provider"] == "amazon-bedrock"
    assert "applicationName" in judged["urls"][0]["ui_url"]


def test_a_published_evaluator_is_written_back_unchanged_and_previewed(judged, tools):
    shown = tools("get_llmobs_evaluator", eval_name="sdk_grounded")
    written = tools("create_or_update_llmobs_evaluator", **shown)
    assert written["changed"] == [] and written["reset_to_default"] == []
    preview = tools("preview_llmobs_evaluator", eval_name="sdk_grounded", sample=1)
    assert preview["traffic"]["matched"] == 1 and preview["traffic"]["share_percent"] == 100
    assert preview["samples"][0]["messages"][1]["content"] == "Q: Where is my order? A: On its way."


def test_evaluations_of_every_type_are_joined_and_found(judged, call, tools):
    (span,) = call("get_llmobs_span_details", {"trace_id": judged["trace"], "span_ids": [judged["span"]]})["spans"]
    evaluations = span["evaluations"]
    values = {name: evaluations[name]["value"] for name in ("b_before", "s_before", "c_tag_before", "j_after", "t_after", "s_tag_after")}
    assert values == {"b_before": False, "s_before": 0.5, "c_tag_before": "calm", "j_after": {"facts": {"found": 2}}, "t_after": True, "s_tag_after": 4}
    assert evaluations["b_before"]["assessment"] == "fail" and evaluations["b_before"]["reasoning"] == "no source"
    assert "judge:v2" in evaluations["t_after"]["tags"]
    for query in ("@evaluations.custom.j_after:*", "@evaluation.j_after.value.facts.found:2", "@evaluation.b_before.assessment:fail", "@evaluations.custom.s_tag_after:>3",
                  "@evaluation.c_tag_before.value:calm", "@feedback.thumbs.value:true", "@feedback.stars.value:>=4", "@feedback.comment.value:*kind*", "@event_kind:feedback"):
        found = tools("search_llmobs_spans", query=query, ml_app=judged["app"])["spans"]
        assert [s["span_id"] for s in found] == [judged["span"]], query
    sums = tools("get_llmobs_eval_aggregate_stats", eval_name="b_before", ml_app=judged["app"])
    assert (sums["type"], sums["total_count"], sums["fail_count"], sums["pass_rate"]) == ("boolean", 1, 1, 0)


def test_datadogs_api_client_reads_and_writes_the_same_configuration(judged, local, tools):
    configuration = Configuration(host=local.url)
    configuration.api_key = {"apiKeyAuth": "none", "appKeyAuth": "none"}
    for name in ("get_llm_obs_custom_eval_config", "list_llm_obs_custom_eval_configs", "update_llm_obs_custom_eval_config", "delete_llm_obs_custom_eval_config"):
        configuration.unstable_operations[name] = True
    with ApiClient(configuration) as client:
        api = AgentObservabilityApi(client)
        listed = api.list_llm_obs_custom_eval_configs()
        assert {"sdk_grounded", "sdk_quality", "sdk_tone"} <= {item.id for item in listed.data}
        for item in listed.data:
            attributes = item.attributes
            assert not isinstance(attributes, dict), item
            for part in (item, attributes, attributes.target, attributes.llm_provider, attributes.llm_judge_config):
                assert not getattr(part, "_unparsed", False), part
        read = api.get_llm_obs_custom_eval_config("sdk_tone").data
        assert read.attributes.target.application_name == judged["app"]
        before = tools("get_llmobs_evaluator", eval_name="sdk_tone")
        attributes = read.to_dict()["attributes"]
        for key in ("created_at", "updated_at", "created_by", "last_updated_by"):
            attributes.pop(key, None)
        attributes["target"]["sampling_percentage"] = 12.5
        body = LLMObsCustomEvalConfigUpdateRequest(data={"type": "evaluator_config", "id": "sdk_tone", "attributes": attributes})
        api.update_llm_obs_custom_eval_config("sdk_tone", body)
        after = tools("get_llmobs_evaluator", eval_name="sdk_tone")
        assert after["target"].pop("sampling_percentage") == 12.5
        for shown in (before, after):
            shown.pop("updated_at")
        assert after == before
        api.delete_llm_obs_custom_eval_config("sdk_tone")
    with pytest.raises(support.ToolFailure, match="evaluator not found"):
        tools("get_llmobs_evaluator", eval_name="sdk_tone")


def test_read_only_servers_have_no_writing_tools(mcp):
    def listed(query):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        with urllib.request.urlopen(urllib.request.Request(mcp.url + "/mcp" + query, body, headers), timeout=10) as answer:
            text = answer.read().decode()
        return {tool["name"]: tool["annotations"] for tool in json.loads(text[text.index("{"):])["result"]["tools"]}

    everything, readable = listed(""), listed("?read_only=true")
    writers = {"create_or_update_llmobs_evaluator", "delete_llmobs_evaluator"}
    assert set(everything) - set(readable) >= writers and not writers & set(readable)
    assert all(everything[name]["readOnlyHint"] is False and everything[name]["destructiveHint"] is True for name in writers)
    assert readable["preview_llmobs_evaluator"]["readOnlyHint"] is True
