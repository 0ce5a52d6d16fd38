-- title: Usage by organization and month
-- category: billing
-- description: Exact sums by organization, sku, unit and month, in UTC.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
SELECT date_trunc('month', timestamp) AS month, organization_id, sku, unit, sum(quantity) AS quantity, count(*) AS events
FROM events WHERE timestamp >= $start AND timestamp < $end AND quantity IS NOT NULL
GROUP BY ALL ORDER BY month, organization_id, sku, unit
