"""Datadog's API client from PyPI reads from `local`, writes to it, and accepts every response.

It knows nothing of this project: if our client and our backend agreed in an error, this would show it.
"""
import contextlib
import csv
import io
import json
import time
import urllib.error
import urllib.request

import pytest
from datadog_api_client import ApiClient, Configuration
from datadog_api_client.exceptions import ApiException, ApiTypeError
from datadog_api_client.model_utils import OpenApiModel
from datadog_api_client.v2 import models
from datadog_api_client.v2.api.agent_observability_api import AgentObservabilityApi
from datadog_api_client.v2.model.llm_obs_search_spans_request import LLMObsSearchSpansRequest
from datadog_api_client.v2.model.llm_obs_search_spans_request_attributes import LLMObsSearchSpansRequestAttributes
from datadog_api_client.v2.model.llm_obs_search_spans_request_data import LLMObsSearchSpansRequestData
from datadog_api_client.v2.model.llm_obs_search_spans_request_type import LLMObsSearchSpansRequestType
from datadog_api_client.v2.model.llm_obs_span_filter import LLMObsSpanFilter
from datadog_api_client.v2.model.llm_obs_span_page_query import LLMObsSpanPageQuery
from datadog_api_client.v2.model.llm_obs_span_search_options import LLMObsSpanSearchOptions

import support

# Operations of the client that the local backend has no endpoint for.
NOT_SERVED = {
    "aggregate_llm_obs_experimentation", "search_llm_obs_experimentation", "simple_search_llm_obs_experimentation",
    "create_llm_obs_annotation_queue", "list_llm_obs_annotation_queues", "update_llm_obs_annotation_queue", "delete_llm_obs_annotation_queue",
    "get_llm_obs_annotation_queue_label_schema", "update_llm_obs_annotation_queue_label_schema",
    "create_llm_obs_annotation_queue_interactions", "delete_llm_obs_annotation_queue_interactions",
    "get_llm_obs_annotated_interaction", "get_llm_obs_annotated_interactions", "get_llm_obs_annotated_interactions_by_trace_i_ds",
    "upsert_llm_obs_annotations", "delete_llm_obs_annotations",
    "list_llm_obs_patterns_configs", "get_llm_obs_patterns_config", "upsert_llm_obs_patterns_config", "delete_llm_obs_patterns_config",
    "trigger_llm_obs_patterns", "list_llm_obs_patterns_runs", "get_llm_obs_patterns_run_status",
    "list_llm_obs_patterns_topics", "list_llm_obs_patterns_topics_with_clustered_points", "list_llm_obs_patterns_clustered_points",
    "get_llm_obs_dataset_draft_state", "lock_llm_obs_dataset_draft_state", "unlock_llm_obs_dataset_draft_state",
    "list_llm_obs_integration_accounts", "list_llm_obs_integration_models", "create_llm_obs_integration_inference"}


@contextlib.contextmanager
def client_of(api):
    configuration = Configuration(host=api.url)
    configuration.api_key = {"apiKeyAuth": "none", "appKeyAuth": "none"}
    configuration.check_input_type = True
    for name in dir(AgentObservabilityApi):
        if name in configuration.unstable_operations:
            configuration.unstable_operations[name] = True
    with ApiClient(configuration) as client:
        yield AgentObservabilityApi(client)


@pytest.fixture(scope="module")
def spans(local, sent):
    with client_of(local) as client:
        yield client


def unread(part, path="answer"):
    """The parts of a response that the typed model could not represent."""
    if isinstance(part, OpenApiModel):
        if getattr(part, "_unparsed", False):
            yield path
        for key, value in getattr(part, "_data_store", {}).items():
            yield from unread(value, f"{path}.{key}")
    elif isinstance(part, (list, tuple)):
        for index, value in enumerate(part):
            yield from unread(value, f"{path}[{index}]")
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from unread(value, f"{path}.{key}")


def accepted(answer):
    """The typed models parsed everything: no part is left as unparsed."""
    assert isinstance(answer, OpenApiModel) and list(unread(answer)) == []
    return answer


def pages(fetch):
    """Every page, by the cursor of the previous one."""
    found, cursor = [], None
    for _ in range(100):
        response = accepted(fetch(**({"cursor": cursor} if cursor else {})))
        assert str(response.meta.status) == "done"
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
def test_an_llm_span_is_complete(mode, spans, sent):
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
    """The documented rule that the tools have to work around."""
    app, other = sent["agentless"], sent["apm"]
    found = accepted(spans.search_llm_obs_spans(search_body({"query": f"@trace_id:{other['traces']['loop']}", "ml_app": app["app"], "_from": app["from"], "to": other["to"]}, 50))).data
    assert {s.attributes.ml_app for s in found} == {other["app"]}


def test_without_attachments_the_structure_is_returned(spans, sent):
    app = sent["agentless"]
    found = accepted(spans.search_llm_obs_spans(search_body({"trace_id": app["traces"]["loop"], "_from": app["from"], "to": app["to"]}, 50, content=False))).data
    assert len(found) == app["counts"]["loop"] and all(s.attributes.span_kind for s in found)


def test_the_client_can_read_the_error_of_an_invalid_limit(spans):
    with pytest.raises(ApiException) as refused:
        spans.list_llm_obs_spans(page_limit=5001)
    assert refused.value.status == 400


def plain(value):
    """A plain value from the client's models of any type."""
    return value.to_dict() if isinstance(value, OpenApiModel) else value


# --- the control plane ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def api(home, tmp_path_factory):
    with support.local(home / "client", tmp_path_factory.mktemp("client")) as api:
        yield api


@pytest.fixture(scope="module")
def client(api):
    with client_of(api) as client:
        yield client


@pytest.fixture(scope="module")
def tool(api, home):
    return lambda name, **arguments: json.loads(support.over_call(api, home, name, arguments))


def body(model, kind, named=None, /, **attributes):
    """A JSON:API body; the client's model checks every part of it."""
    made = getattr(models, model)(data={"type": kind, **({"id": named} if named else {}), "attributes": attributes})
    assert list(unread(made)) == [], "the client sends what it knows"
    return made


@pytest.fixture(scope="module")
def project(client):
    return accepted(client.create_llm_obs_project(body("LLMObsProjectRequest", "projects", name="by-client", description="written by Datadog's client"))).data.id


@pytest.fixture
def dataset(client, project, request):
    """A dataset with two records in version 1."""
    made = accepted(client.create_llm_obs_dataset(project, body("LLMObsDatasetRequest", "datasets", name=request.node.name, description="d", metadata={"a": 1}))).data
    assert (made.attributes.name, made.attributes.current_version, made.attributes.metadata) == (request.node.name, 0, {"a": 1})
    records = [{"input": {"q": "one"}, "expected_output": "1", "metadata": {"m": True}}, {"input": "two"}]
    added = accepted(client.create_llm_obs_dataset_records(project, made.id, body("LLMObsDatasetRecordsRequest", "records", records=records))).data
    assert [[plain(record.input) for record in item.records] for item in added] == [[{"q": "one"}], ["two"]]
    return made.id


def records_of(client, project, dataset, **query):
    """All records, in pages of one."""
    found, cursor = [], {}
    while True:
        page = accepted(client.list_llm_obs_dataset_records(project, dataset, page_limit=1, **cursor, **query))
        found += page.data
        if not page.meta.after:
            return found
        cursor = {"page_cursor": page.meta.after}


def versions_of(client, project, dataset):
    return [item.attributes.version_number for item in accepted(client.list_llm_obs_dataset_versions(project, dataset)).data]


def test_every_operation_of_the_client_is_served_or_listed_as_unserved(client, api):
    """Calls each operation with an empty body: those without an endpoint say so, the others return data or another error."""
    missing = set()
    for settings in (endpoint.settings for name, endpoint in vars(client).items() if name.endswith("_endpoint")):
        path = settings["endpoint_path"].replace("{", "no-such-").replace("}", "")
        request = urllib.request.Request(api.url + path, b"{}", {"Content-Type": "application/json"}, method=settings["http_method"])
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as error:
            assert error.code in (400, 404), (path, error.code)
            if "has no such path" in error.read().decode():
                missing.add(settings["operation_id"])
    assert missing == NOT_SERVED


def test_projects(client):
    made = [accepted(client.create_llm_obs_project(body("LLMObsProjectRequest", "projects", name=name))).data for name in ("one", "two", "one")]
    assert made[0].id == made[2].id != made[1].id, "the same name is the same project"
    changed = accepted(client.update_llm_obs_project(made[0].id, body("LLMObsProjectUpdateRequest", "projects", name="uno", description="the first"))).data
    assert (changed.attributes.name, changed.attributes.description) == ("uno", "the first")
    assert changed.attributes.created_at == made[0].attributes.created_at <= changed.attributes.updated_at
    found, cursor = [], {}
    while True:
        page = accepted(client.list_llm_obs_projects(page_limit=1, **cursor))
        found += [item.id for item in page.data]
        if not page.meta.after:
            break
        cursor = {"page_cursor": page.meta.after}
    assert len(found) == len(set(found)) and found.index(made[1].id) < found.index(made[0].id), "the newest first"
    assert [item.id for item in accepted(client.list_llm_obs_projects(filter_name="uno")).data] == [made[0].id]
    client.delete_llm_obs_projects(body("LLMObsDeleteProjectsRequest", "projects", project_ids=[item.id for item in made[:2]]))
    assert accepted(client.list_llm_obs_projects(filter_name="uno")).data == [] and accepted(client.list_llm_obs_projects(filter_id=made[1].id)).data == []


def test_datasets_are_listed_changed_and_deleted(client, project, dataset):
    changed = accepted(client.update_llm_obs_dataset(project, dataset, body("LLMObsDatasetUpdateRequest", "datasets", name="renamed", description="e"))).data
    assert (changed.id, changed.attributes.name, changed.attributes.description, changed.attributes.metadata) == (dataset, "renamed", "e", {"a": 1})
    [listed] = accepted(client.list_llm_obs_datasets(project, filter_name="renamed")).data
    assert (listed.id, listed.attributes.current_version) == (dataset, 1)
    assert dataset in [item.id for item in accepted(client.list_llm_obs_datasets(project)).data]
    client.delete_llm_obs_datasets(project, body("LLMObsDeleteDatasetsRequest", "datasets", dataset_ids=[dataset]))
    assert accepted(client.list_llm_obs_datasets(project, filter_id=dataset)).data == []
    with pytest.raises(ApiException) as gone:
        client.list_llm_obs_dataset_records(project, dataset)
    assert gone.value.status == 404


def test_records_are_added_changed_and_deleted(client, project, dataset, tool):
    first, second = records_of(client, project, dataset)
    assert (plain(first.input), first.expected_output, first.metadata, first.dataset_id) == ({"q": "one"}, "1", {"m": True}, dataset)
    assert (second.input, second.expected_output) == ("two", None)
    repeated = body("LLMObsDatasetRecordsRequest", "records", records=[{"input": "two"}])
    assert accepted(client.create_llm_obs_dataset_records(project, dataset, repeated)).data == [], "known already"
    changes = body("LLMObsDatasetRecordsUpdateRequest", "records", records=[{"id": first.id, "expected_output": {"n": [1, 2.5, True]}}])
    [changed] = accepted(client.update_llm_obs_dataset_records(project, dataset, changes)).data
    assert [(record.id, plain(record.expected_output)) for record in changed.records] == [(first.id, {"n": [1, 2.5, True]})]
    client.delete_llm_obs_dataset_records(project, dataset, body("LLMObsDeleteDatasetRecordsRequest", "records", record_ids=[second.id]))
    [left] = records_of(client, project, dataset)
    assert (left.id, plain(left.input), plain(left.expected_output), left.metadata) == (first.id, {"q": "one"}, {"n": [1, 2.5, True]}, {"m": True})
    [read] = tool("get_llmobs_dataset_records", project_id=project, dataset_id=dataset)["records"]
    assert (read["id"], read["expected_output"]) == (first.id, {"n": [1, 2.5, True]})
    assert [record.id for record in records_of(client, project, dataset, filter_version=1)] == [first.id, second.id]


def test_a_batch_makes_one_version_and_old_versions_can_be_read(client, project, dataset, tool):
    first, second = records_of(client, project, dataset)
    batch = body("LLMObsDatasetBatchUpdateRequest", "datasets", dataset, create_new_version=True, tags=["batch:1"], delete_records=[second.id],
                 insert_records=[{"input": 3, "expected_output": False, "tags": ["new:yes"]}],
                 update_records=[{"id": first.id, "metadata": {"m": "changed"}, "tag_operations": {"add": ["lang:de"]}}])
    answered = [record for item in accepted(client.batch_update_llm_obs_dataset(project, dataset, batch)).data for record in item.records]
    assert {record.id for record in answered} >= {first.id} and [record.input for record in answered if record.id != first.id] == [3]
    assert versions_of(client, project, dataset) == [2, 1, 0]
    read = {record["id"]: record for record in tool("get_llmobs_dataset_records", project_id=project, dataset_id=dataset)["records"]}
    assert read.pop(first.id)["tags"] == ["lang:de"]
    [(_, inserted)] = read.items()
    assert (inserted["input"], inserted["expected_output"], sorted(inserted["tags"])) == (3, False, ["batch:1", "new:yes"])

    copy = accepted(client.clone_llm_obs_dataset(project, dataset, body("LLMObsDatasetCloneRequest", "datasets", dataset, name="copy", description="of it"))).data
    assert (copy.attributes.name, copy.attributes.description) == ("copy", "of it") and copy.id != dataset
    assert [plain(record.input) for record in records_of(client, project, copy.id)] == [{"q": "one"}, 3]

    client.restore_llm_obs_dataset_version(project, dataset, body("LLMObsDatasetRestoreVersionRequest", "datasets", dataset, dataset_version=1))
    assert versions_of(client, project, dataset) == [3, 2, 1, 0]
    assert [(record.id, plain(record.input), record.metadata) for record in records_of(client, project, dataset)] == [(first.id, {"q": "one"}, {"m": True}), (second.id, "two", {})]


def test_records_are_exported_and_imported_as_csv(client, project, dataset, tmp_path):
    rows = list(csv.DictReader(io.StringIO(client.export_llm_obs_dataset(project, dataset, format=models.LLMObsDatasetExportFormat.CSV))))
    assert [(json.loads(row["input"]), json.loads(row["expected_output"])) for row in rows] == [({"q": "one"}, "1"), ("two", None)]
    assert [row["id"] for row in rows] == [record.id for record in records_of(client, project, dataset)]
    with open(tmp_path / "more.csv", "w", newline="") as f:
        csv.writer(f).writerows([["input", "expected_output", "tags"], ['{"q": "drei, \\"3\\""}', "3", '["lang:de"]']])
    with open(tmp_path / "more.csv", "rb") as f:
        client.upload_llm_obs_dataset_records_file(project, dataset, file=f)
    found = records_of(client, project, dataset)
    assert len(found) == 3 and plain(found[2].input) == {"q": 'drei, "3"'}


@pytest.mark.filterwarnings("ignore:list_llm_obs_experiment_events_v. is deprecated")
def test_an_experiment_from_its_creation_to_its_end(client, project, dataset, tool):
    with pytest.raises(TypeError, match="config"):  # Datadog also omits it, contrary to this model
        client.create_llm_obs_experiment(body("LLMObsExperimentRequest", "experiments", name="by-client", project_id=project, dataset_id=dataset, config={"model": "m"},
                                              metadata={"tags": ["team:x"]}, run_count=2, description="d"))
    [made] = accepted(client.list_llm_obs_experiments(filter_project_id=project, filter_experiment="by-client", include_dataset_names=True, include_user_data=True)).data
    a = made.attributes
    assert (a.experiment, a.project_id, a.dataset_id, a.dataset_version, a.run_count, a.description) == ("by-client", project, dataset, 1, 2, "d")
    assert a.config == {"model": "m"} and a.metadata == {"tags": ["team:x"]} and a.name.startswith("by-client-") and a.dataset_name
    with pytest.raises(ApiTypeError, match="received_data"):  # as Datadog does: 200 with an empty body
        client.update_llm_obs_experiment(made.id, body("LLMObsExperimentUpdateRequest", "experiments", status="failed", error="one record failed"))
    [changed] = accepted(client.list_llm_obs_experiments(filter_id=made.id)).data
    assert (str(changed.attributes.status), changed.attributes.error) == ("failed", "one record failed")

    now = time.time_ns()
    span = {"name": "task", "project_id": project, "dataset_id": dataset, "start_ns": now}
    # The client's model of any value cannot represent an empty object, which the SDK sends as the output of a failed task.
    failed = {"input": "two", "output": "", "error": {"message": "no answer", "type": "TimeoutError", "stack": "at answer"}}
    values = {"score": 0.25, "boolean": True, "categorical": "calm", "json": {"found": 2}}
    metrics = [{"span_id": "71", "label": kind, "metric_type": kind, f"{kind}_value": value, "timestamp_ms": now // 10**6, "assessment": "fail", "reasoning": "because",
                "tags": ["judge:rules"], "metadata": {"n": 1}} for kind, value in values.items()]
    metrics.append({"span_id": "72", "label": "score", "metric_type": "score", "timestamp_ms": now // 10**6, "error": {"message": "nothing to judge"}})
    client.create_llm_obs_experiment_events(made.id, body("LLMObsExperimentEventsRequest", "events", metrics=metrics, spans=[
        {**span, "trace_id": "ab" * 16, "span_id": "71", "duration": 3_000_000, "status": "ok", "tags": ["dataset_record_id:r1", "run_iteration:1", "lang:de"],
         "meta": {"input": {"q": "one"}, "output": "1", "expected_output": {"a": 1}}},
        {**span, "trace_id": "ac" * 16, "span_id": "72", "duration": 1_000_000, "status": "error", "tags": ["dataset_record_id:r2", "run_iteration:1"], "meta": failed}]))

    second = accepted(client.list_llm_obs_experiment_events_v2(made.id)).data.attributes.spans
    first = [item.attributes for item in accepted(client.list_llm_obs_experiment_events_v1(made.id)).data]
    third, cursor = [], {}
    while True:
        page = accepted(client.list_llm_obs_experiment_events(made.id, page_limit=1, **cursor))
        third += page.data.attributes.spans
        if not page.meta.after:
            break
        cursor = {"page_cursor": page.meta.after}
    for spans in (first, second, third):
        by_id = {one.span_id: one for one in spans}
        assert len(spans) == len(by_id) == 2
        good, bad = by_id["71"], by_id["72"]
        assert (good.trace_id, good.start_ns, good.duration, str(good.status), good.dataset_record_id) == ("ab" * 16, now, 3_000_000, "ok", "r1")
        assert plain(good.meta.input) == {"q": "one"} and good.meta.output == "1" and plain(good.meta.expected_output) == {"a": 1}
        assert {metric.label: plain(getattr(metric, f"{metric.metric_type}_value")) for metric in good.eval_metrics} == values
        assert {(str(m.assessment), m.reasoning, m.metric_source, tuple(m.tags), m.timestamp_ms) for m in good.eval_metrics} == {("fail", "because", "custom", ("judge:rules",), now // 10**6)}
        assert (str(bad.status), bad.meta.error.message, bad.meta.error.type, bad.meta.error.stack) == ("error", "no answer", "TimeoutError", "at answer")
        [judged] = bad.eval_metrics
        assert judged.label == "score" and getattr(judged, "score_value", None) is None

    summary = tool("get_llmobs_experiment_summary", experiment_id=made.id, include_failed=True)
    assert (summary["total_events"], summary["error_count"], summary["records"]) == (2, 1, 2)
    assert summary["evals"]["score"] == {"metric_type": "score", "count": 1, "mean": 0.25, "min": 0.25, "max": 0.25, "p50": 0.25, "fail_count": 1, "evaluator_errors": 1}

    client.delete_llm_obs_experiments(body("LLMObsDeleteExperimentsRequest", "experiments", experiment_ids=[made.id]))
    assert accepted(client.list_llm_obs_experiments(filter_id=made.id)).data == []
    [deleted] = accepted(client.list_llm_obs_experiments(filter_id=made.id, filter_is_deleted=True)).data
    assert deleted.attributes.deleted_at >= deleted.attributes.created_at


def test_prompts_and_their_versions(client):
    greeting, later = [{"role": "system", "content": "You greet {{user}}."}], [{"role": "user", "content": "Hi"}, {"type": "placeholder", "name": "history"}]
    made = accepted(client.create_llm_obs_prompt(body("LLMObsCreatePromptRequest", "prompt-templates", prompt_id="greeting", title="Greeting", template=greeting, labels=["production"], user_version="v1"))).data
    assert (made.attributes.prompt_id, made.attributes.title, made.attributes.num_versions) == ("greeting", "Greeting", 1)
    accepted(client.create_llm_obs_prompt(body("LLMObsCreatePromptRequest", "prompt-templates", prompt_id="plain", template="Hello {{user}}")))
    assert accepted(client.get_llm_obs_prompt("plain")).data.attributes.template == "Hello {{user}}"
    added = accepted(client.create_llm_obs_prompt_version("greeting", body("LLMObsCreatePromptVersionRequest", "prompt-template-versions", template=later, labels=["development"]))).data
    assert added.attributes.version == 2 and added.attributes.prompt_uuid == made.id

    def template(**query):
        read = accepted(client.get_llm_obs_prompt("greeting", **query)).data.attributes
        return [message.to_dict() for message in read.chat_template], read.version
    assert template() == (later, "2") and template(label="production") == (greeting, "v1")
    moved = accepted(client.update_llm_obs_prompt_version("greeting", 2, body("LLMObsUpdatePromptVersionRequest", "prompt-template-versions", labels=["production"], description="the new one"))).data
    assert (moved.attributes.labels, moved.attributes.description) == (["production"], "the new one")
    assert template(label="production") == (later, "2"), "a label names one version"
    listed = accepted(client.list_llm_obs_prompt_versions("greeting")).data
    assert [(item.attributes.version, item.attributes.user_version, item.attributes.labels) for item in listed] == [(2, "", ["production"]), (1, "v1", [])]
    old = accepted(client.get_llm_obs_prompt_version("greeting", 1)).data.attributes
    assert [message.to_dict() for message in old.template] == greeting and old.user_version == "v1"
    renamed = accepted(client.update_llm_obs_prompt("greeting", body("LLMObsUpdatePromptRequest", "prompt-templates", title="Welcome"))).data
    assert (renamed.attributes.title, renamed.attributes.num_versions) == ("Welcome", 2)
    assert [item.attributes.prompt_id for item in accepted(client.list_llm_obs_prompts(filter_prompt_id="greeting")).data] == ["greeting"]
    assert accepted(client.delete_llm_obs_prompt("greeting")).data.attributes.prompt_id == "greeting"
    assert [item.attributes.prompt_id for item in accepted(client.list_llm_obs_prompts()).data] == ["plain"]


def test_an_evaluator_from_its_creation_to_its_end(client, tool):
    attributes = {
        "eval_name": "tone", "target": {"application_name": "by-client", "enabled": True, "sampling_percentage": 12.5, "eval_scope": "span", "filter": "@span.kind:llm", "root_spans_only": False},
        "llm_provider": {"integration_provider": "openai", "integration_account_id": "account", "model_name": "judge-1"},
        "llm_judge_config": {"parsing_type": "structured_output", "prompt_template": [{"role": "user", "content": "Judge {{span_output}}"}], "inference_params": {"temperature": 0.5, "max_tokens": 64},
                             "output_schema": {"name": "boolean_eval", "schema": {"type": "object", "properties": {"boolean_eval": {"type": "boolean"}}}}, "assessment_criteria": {"pass_when": True}}}
    client.update_llm_obs_custom_eval_config("tone", body("LLMObsCustomEvalConfigUpdateRequest", "evaluator_config", "tone", **attributes))
    read = accepted(client.get_llm_obs_custom_eval_config("tone")).data
    known = read.to_dict()["attributes"]
    for part in ("target", "llm_provider", "llm_judge_config"):
        assert {key: value for key, value in known[part].items() if key in attributes[part]} == attributes[part]
    assert read.attributes.created_at == read.attributes.updated_at
    assert [item.id for item in accepted(client.list_llm_obs_custom_eval_configs()).data] == ["tone"]
    shown = tool("get_llmobs_evaluator", eval_name="tone")
    assert shown["prompt_template"] == attributes["llm_judge_config"]["prompt_template"] and shown["target"]["sampling_percentage"] == 12.5
    client.delete_llm_obs_custom_eval_config("tone")
    assert accepted(client.list_llm_obs_custom_eval_configs()).data == []
    with pytest.raises(ApiException) as gone:
        client.get_llm_obs_custom_eval_config("tone")
    assert gone.value.status == 404
