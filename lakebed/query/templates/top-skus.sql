-- title: Top SKUs
-- category: billing
-- description: The most frequently used SKUs, and the number of organizations that use each.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: limit integer = 100: maximum number of rows
SELECT sku, unit, count(*) AS events, sum(quantity) AS quantity, count(DISTINCT organization_id) AS organizations
FROM events WHERE timestamp >= $start AND timestamp < $end AND quantity IS NOT NULL
GROUP BY sku, unit ORDER BY events DESC, sku, unit LIMIT $limit
