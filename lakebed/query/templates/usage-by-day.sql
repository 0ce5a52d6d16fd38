-- title: Usage by day of one organization
-- category: billing
-- description: Exact sums by day, sku and unit, in UTC.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: organization text: the organization_id
SELECT CAST(timestamp AS DATE) AS date, sku, unit, sum(quantity) AS quantity
FROM events WHERE timestamp >= $start AND timestamp < $end AND quantity IS NOT NULL AND organization_id = $organization
GROUP BY ALL ORDER BY date, sku, unit
