"""The SDK's reader, `LLMObs.get_spans`, on data that the SDK sent."""
import pytest

import support


@pytest.mark.parametrize("mode", support.MODES)
def test_every_page_is_read(mode, sent, local, home):
    app = sent[mode]
    spans = support.run_app("read_app.py", "agentless", local, home, {"ml_app": app["app"], "from_date": app["from"], "to_date": app["to"], "limit": 3})
    ids = [s["span_id"] for s in spans]
    assert len(ids) == len(set(ids)) == sum(app["counts"].values())
    assert [s["start_ns"] for s in spans] == sorted(s["start_ns"] for s in spans)


@pytest.mark.parametrize("filters, names", [
    ({"tags": {"tier": "gold"}}, ["handle_ticket"]),
    ({"span_kind": "retrieval"}, ["search"]),
    ({"span_name": "inventory"}, ["inventory"]),
    ({"query": '@ml_app:"sdk-apm" @status:error @meta.span.kind:tool'}, ["inventory"]),
])
def test_filters_are_honoured(filters, names, sent, local, home):
    app = sent["apm"]
    spans = support.run_app("read_app.py", "agentless", local, home, {"ml_app": app["app"], "from_date": app["from"], "to_date": app["to"], **filters})
    assert [s["name"] for s in spans] == names
