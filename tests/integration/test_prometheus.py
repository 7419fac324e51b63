"""What an operator's Prometheus and Grafana make of it: the shipped alerts, the shipped dashboard, a real scrape."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.conftest import StartGateway
from tests.fixtures.planted import plant
from tests.fixtures.prometheus import promtool, scraping
from tests.fixtures.waiting import until

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "config" / "prometheus" / "alerts.yaml"
CASES = ROOT / "tests" / "prometheus" / "alerts_test.yaml"
DASHBOARD = ROOT / "config" / "grafana" / "ostiary.json"
OBSERVABILITY = (ROOT / "docs" / "observability.md").read_text()
NAME = re.compile(r"\b(?:ostiary|process)_[a-z_]+\b")
TRACE = "0af7651916cd43dd8448eb211c80319c"
VARIABLES = {"$job": "ostiary", "$instance": ".*", "$route": ".*", "$__rate_interval": "1m"}


def alerts() -> list[dict[str, Any]]:
    """The shipped rules."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def expressions() -> Iterator[str]:
    """Every query of the dashboard, its variables filled in; those of the variables too."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression: str = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield expression
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"label_values\((.*), \w+\)", r"\1", variable["definition"]).replace("$job", "ostiary")


def families(page: str) -> dict[str, str]:
    """The metrics of a page and their types, by the names that queries use."""
    found = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    parts = {f"{name}_{part}": kind for name, kind in found.items() for part in ("bucket", "sum", "count")}
    return found | {name: kind for name, kind in parts.items() if kind == "histogram"}


async def page_of(url: str, accept: str = "text/plain") -> str:
    async with aiohttp.ClientSession() as session, session.get(url + "/metrics", headers={"Accept": accept}) as answer:
        return await answer.text()


async def test_the_alerts_go_off_when_they_should() -> None:
    """Each in its case and not before, by the language's own tests; the shipped configuration is right."""
    said = await promtool("test", "rules", str(CASES))
    assert "SUCCESS" in said
    await promtool("check", "config", str(ALERTS.with_name("prometheus.yaml")))


def test_every_alert_is_tested_and_explained() -> None:
    """It goes off in a case, says how bad it is and what it means, and its page tells what to do."""
    cases = yaml.safe_load(CASES.read_text())["tests"]
    gone_off = {test["alertname"] for case in cases for test in case["alert_rule_test"] if test["exp_alerts"]}
    assert gone_off == {rule["alert"] for rule in alerts()}
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"] == f"docs/observability.md#{rule['alert'].lower()}"
        assert f"\n### {rule['alert']}\n" in OBSERVABILITY


async def test_every_metric_that_is_asked_for_is_there(gateway: StartGateway) -> None:
    """What alerts and dashboard name stands on the page of a running gateway, and the manual says what each is."""
    node = await gateway(workers=2)
    there = families(await page_of(node.status_url))
    named = {name for text in (ALERTS.read_text(), *expressions()) for name in NAME.findall(text)}
    assert len(named) > 30
    assert not named - there.keys()
    own = {name: kind for name, kind in there.items() if not name.endswith(("_bucket", "_sum", "_count", "_created"))}
    documented = dict(re.findall(r"^\| `((?:ostiary|process)_\w+)` \| (\w+) \|", OBSERVABILITY, re.MULTILINE))
    assert documented == own


async def test_a_real_prometheus_scrapes_a_running_gateway(
    gateway: StartGateway, postgres_dsn: str, tmp_path: Path
) -> None:
    """It takes OpenMetrics, exemplars included; every query of the dashboard and every rule can be evaluated. R079."""
    caller = await plant(postgres_dsn)
    node = await gateway({"log": {"access": "full"}}, workers=2)
    headers = {"X-Api-Key": caller.secret, "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(20):
            async with session.get(node.proxy_url + "/orders/1") as answer:
                assert answer.status == 200
    for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        said = await promtool("check", "metrics", stdin=(await page_of(node.status_url)).encode())
        assert "error" not in said.lower(), (accept, said)
    async with scraping(tmp_path, node.status_url.removeprefix("http://"), ALERTS) as prometheus:
        assert await prometheus.value('sum(ostiary_requests_total{route="orders",outcome="forwarded"})') == [20.0]
        assert await prometheus.value("ostiary_build_info") == [1.0]
        for expression in expressions():
            await prometheus.get("query", query=expression)
        shown = await prometheus.get(
            "query_exemplars", query="ostiary_request_duration_seconds_bucket", start="0", end="9999999999"
        )
        assert {one["labels"]["trace_id"] for series in shown for one in series["exemplars"]} == {TRACE}

        async def are_evaluated() -> bool:
            groups = (await prometheus.get("rules"))["groups"]
            return all(rule["health"] == "ok" for group in groups for rule in group["rules"])

        await until(are_evaluated, what="every rule to be evaluated")
        assert [
            alert["labels"] for alert in (await prometheus.get("alerts"))["alerts"] if alert["state"] == "firing"
        ] == []
