"""A parser of metrics that is not ours (prometheus_client), against what processes show at /metrics.

usage: metrics.py HOST:PORT..

Every family has HELP and TYPE and comes once, every series comes once, and a histogram's buckets rise to its count.
"""

import sys
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

WAIT_S = 10


def main(addresses: list[str]) -> None:
    for address in addresses:
        with urlopen(f"http://{address}/metrics", timeout=WAIT_S) as answer:
            expect(f"content type of {address}", answer.headers["content-type"].split(";")[0], "text/plain")
            families = list(text_string_to_metric_families(answer.read().decode()))
        names = [family.name for family in families]
        expect(f"families of {address} that come twice", sorted({name for name in names if names.count(name) > 1}), [])
        expect("without HELP or TYPE", [f.name for f in families if not f.documentation or f.type == "unknown"], [])
        expect("without a series", [f.name for f in families if not f.samples], [])
        series = [(sample.name, tuple(sorted(sample.labels.items()))) for f in families for sample in f.samples]
        expect("series that come twice", sorted({one for one in series if series.count(one) > 1}), [])
        expect("buckets that do not rise to their count", [f.name for f in families if not rises(f)], [])
        print(f"  {len(families)} families, {len(series)} series of {address}")
        if not families:
            sys.exit(f"{address} shows nothing")


def rises(family) -> bool:
    buckets, counts = {}, {}
    for sample in family.samples if family.type == "histogram" else []:
        labels = tuple(sorted((key, value) for key, value in sample.labels.items() if key != "le"))
        if sample.name.endswith("_bucket"):
            buckets.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_count"):
            counts[labels] = sample.value
    for labels, of in buckets.items():
        values = [value for _, value in of]
        if of != sorted(of) or values != sorted(values) or of[-1] != (float("inf"), counts.get(labels)):
            return False
    return buckets.keys() == counts.keys()


def expect(what: str, found, wanted) -> None:
    if found != wanted:
        sys.exit(f"{what}: found {found}, expected {wanted}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
