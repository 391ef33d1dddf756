"""Datadog's own API client from PyPI reads from `local` and accepts every answer.

It knows nothing of this project: if our client and our backend agreed in an error, this would show it.
"""
import pytest
from datadog_api_client import ApiClient, Configuration
from datadog_api_client.exceptions import ApiException
from datadog_api_client.v2.api.agent_observability_api import AgentObservabilityApi
from datadog_api_client.v2.model.llm_obs_search_spans_request import LLMObsSearchSpansRequest
from datadog_api_client.v2.model.llm_obs_search_spans_request_attributes import LLMObsSearchSpansRequestAttributes
from datadog_api_client.v2.model.llm_obs_search_spans_request_data import LLMObsSearchSpansRequestData
from datadog_api_client.v2.model.llm_obs_search_spans_request_type import LLMObsSearchSpansRequestType
from datadog_api_client.v2.model.llm_obs_span_filter import LLMObsSpanFilter
from datadog_api_client.v2.model.llm_obs_span_page_query import LLMObsSpanPageQuery
from datadog_api_client.v2.model.llm_obs_span_search_options import LLMObsSpanSearchOptions

import support


@pytest.fixture(scope="module")
def spans(local, sent):
    configuration = Configuration(host=local.url)
    configuration.api_key = {"apiKeyAuth": "none", "appKeyAuth": "none"}
    configuration.unstable_operations["list_llm_obs_spans"] = True
    configuration.unstable_operations["search_llm_obs_spans"] = True
    configuration.check_input_type = True
    with ApiClient(configuration) as client:
        yield AgentObservabilityApi(client)


def accepted(response):
    """The typed models took everything: no part was left over as unparsed."""
    assert not getattr(response, "_unparsed", False)
    for item in response.data:
        assert not getattr(item, "_unparsed", False) and not getattr(item.attributes, "_unparsed", False)
        for part in (getattr(item.attributes, "input", None), getattr(item.attributes, "output", None)):
            assert not getattr(part, "_unparsed", False)
            for message in getattr(part, "messages", None) or []:
                assert not getattr(message, "_unparsed", False)
        for evaluation in (getattr(item.attributes, "evaluation", None) or {}).values():
            assert not getattr(evaluation, "_unparsed", False)
    assert str(response.meta.status) == "done"
    return response


def pages(fetch):
    """Every page, by the cursor of the one before."""
    found, cursor = [], None
    for _ in range(100):
        response = accepted(fetch(**({"cursor": cursor} if cursor else {})))
        found += response.data
        cursor = getattr(getattr(response.meta, "page", None), "after", None)
        if not cursor:
            return found
    raise AssertionError("the cursor never ended")


def search_body(filters, limit, cursor=None, content=True, sort="-timestamp"):
    page = LLMObsSpanPageQuery(limit=limit, **({"cursor": cursor} if cursor else {}))
    return LLMObsSearchSpansRequest(data=LLMObsSearchSpansRequestData(type=LLMObsSearchSpansRequestType.SPANS, attributes=LLMObsSearchSpansRequestAttributes(
        filter=LLMObsSpanFilter(**filters), page=page, options=LLMObsSpanSearchOptions(include_attachments=content), sort=sort)))


@pytest.mark.parametrize("mode", support.MODES)
def test_search_reads_every_page_and_each_span_once(mode, spans, sent):
    app = sent[mode]
    found = pages(lambda cursor=None: spans.search_llm_obs_spans(search_body({"ml_app": app["app"], "_from": app["from"], "to": app["to"]}, 3, cursor)))
    ids = [s.attributes.span_id for s in found]
    assert len(ids) == len(set(ids)) == sum(app["counts"].values())
    assert set(app["spans"].values()) <= set(ids)
    assert {s.attributes.trace_id for s in found} == set(app["traces"].values())


@pytest.mark.parametrize("mode", support.MODES)
def test_list_reads_every_page_and_each_span_once(mode, spans, sent):
    app = sent[mode]
    found = pages(lambda cursor=None: spans.list_llm_obs_spans(filter_ml_app=app["app"], filter_from=app["from"], filter_to=app["to"], page_limit=5, sort="timestamp", **({"page_cursor": cursor} if cursor else {})))
    ids = [s.attributes.span_id for s in found]
    assert len(ids) == len(set(ids)) == sum(app["counts"].values())
    starts = [s.attributes.start_ns for s in found]
    assert starts == sorted(starts), "oldest first"


@pytest.mark.parametrize("mode", support.MODES)
def test_an_llm_span_is_whole(mode, spans, sent):
    app = sent[mode]
    (span,) = accepted(spans.search_llm_obs_spans(search_body({"span_id": app["spans"]["llm_3"], "_from": app["from"], "to": app["to"]}, 10))).data
    a = span.attributes
    assert (a.name, a.span_kind, a.status, a.ml_app, a.parent_id) == ("chat", "llm", "ok", app["app"], app["spans"]["agent"])
    assert a.model_name == "gpt-4.1" and a.metrics["total_tokens"] == 120 and a.duration > 0
    assert [m.role for m in a.input.messages] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert a.input.messages[2].tool_calls[0].arguments == {"order_id": "A-17"} and a.output.messages[0].content == "Refunded 49.90 EUR."
    assert {t.name for t in a.tool_definitions} == {"lookup_order", "refund_order"}
    assert a.evaluation["faithfulness"].value == 0.9 and str(a.evaluation["faithfulness"].assessment) == "pass"
    assert f"ml_app:{app['app']}" in a.tags


def test_a_query_makes_structured_filters_ignored(spans, sent):
    """The documented rule, which the MCP side has to work around."""
    app, other = sent["agentless"], sent["apm"]
    found = accepted(spans.search_llm_obs_spans(search_body({"query": f"@trace_id:{other['traces']['loop']}", "ml_app": app["app"], "_from": app["from"], "to": other["to"]}, 50))).data
    assert {s.attributes.ml_app for s in found} == {other["app"]}


def test_without_attachments_the_structure_stays(spans, sent):
    app = sent["agentless"]
    found = accepted(spans.search_llm_obs_spans(search_body({"trace_id": app["traces"]["loop"], "_from": app["from"], "to": app["to"]}, 50, content=False))).data
    assert len(found) == app["counts"]["loop"] and all(s.attributes.span_kind for s in found)


def test_a_wrong_limit_is_refused_in_words_the_client_reads(spans):
    with pytest.raises(ApiException) as refused:
        spans.list_llm_obs_spans(page_limit=5001)
    assert refused.value.status == 400
