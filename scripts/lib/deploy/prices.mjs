/**
 * What a deployment costs: prices.mjs SETTINGS FOLDER. SETTINGS has lines "name=value"; FOLDER has what the price list
 * said, a file "<type>.json" each, or nothing. Prices the list does not tell come from the table below, and are marked.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const [settingsFile, folder] = process.argv.slice(2)
const settings = Object.fromEntries(
  readFileSync(settingsFile, 'utf8')
    .split('\n')
    .map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
)

/** USD, On-Demand, Linux, us-east-1, as of January 2025; other regions are up to half as much again. */
const table = {
  't4g.micro': 0.0084,
  't4g.small': 0.0168,
  't4g.medium': 0.0336,
  't4g.large': 0.0672,
  't4g.xlarge': 0.1344,
  't3.small': 0.0208,
  't3.medium': 0.0416,
  't3.large': 0.0832,
  'c7g.medium': 0.0363,
  'c7g.large': 0.0725,
  'c7g.xlarge': 0.145,
  'c6g.large': 0.068,
  'm7g.large': 0.0816,
  'm6g.large': 0.077,
  'r7g.large': 0.1071,
  'c7i.large': 0.0893,
  'm7i.large': 0.1008,
  'cache.t4g.micro': 0.0128,
  'cache.t4g.small': 0.0256,
  'cache.t4g.medium': 0.052,
  'cache.m7g.large': 0.1264,
}
const gibMonth = 0.08
const publicAddressHour = 0.005
const loadBalancerHour = 0.0225
const secretMonth = 0.4
const alarmMonth = 0.1
const metricMonth = 0.3
const hoursOfMonth = 730

let isFromTable = false
const onNodes = settings.pRedis === 'nodes'
const machines = onNodes ? 3 : 2
const addresses = settings.pPublicAddresses === 'yes' ? machines : 0
// Each set of dimensions is a metric of its own: 12 of the deployment, 2 of the nodes, 6 of the queue `default`.
const metrics = 12 + 2 + 6
// Six alarms of one metric, and one of two.
const alarms = 6 + 2
/** PutMetricData, by two nodes each minute, at 0.01 USD a thousand. */
const publishMonth = (2 * 60 * 24 * 30 * 0.01) / 1000
const workerGib = 10
const rows = [
  [`2 nodes, ${settings.pNodeInstanceType}`, times(2, priceOf(settings.pNodeInstanceType))],
  onNodes
    ? [`witness, ${settings.pWitnessInstanceType}`, priceOf(settings.pWitnessInstanceType)]
    : [`ElastiCache, 2 × ${settings.pCacheNodeType}`, times(2, priceOf(settings.pCacheNodeType))],
  [
    `${machines} volumes of ${settings.pVolumeGb} GiB`,
    (machines * Number(settings.pVolumeGb) * gibMonth) / hoursOfMonth,
  ],
  ...(addresses > 0 ? [[`${addresses} public addresses`, addresses * publicAddressHour]] : []),
  ...(settings.pLoadBalancer === 'none' ? [] : [['load balancer, without traffic', loadBalancerHour]]),
  [
    'secrets, alarms, metrics',
    (3 * secretMonth + alarms * alarmMonth + metrics * metricMonth + publishMonth) / hoursOfMonth,
  ],
]
const workerType = (settings.pWorkerInstanceTypes ?? '').split(',')[0]
const bare = priceOf(workerType)
// With its disk, and the public address that it has in a network of the stack.
const worker =
  bare === undefined
    ? undefined
    : bare + (workerGib * gibMonth) / hoursOfMonth + (settings.pVpcId === '' ? publicAddressHour : 0)
const fewest = Number(settings.pMinWorkers)
if (fewest > 0) rows.push([`${fewest} workers that are kept, ${workerType}`, times(fewest, worker)])

const idle = rows.reduce((sum, [, usd]) => sum + (usd ?? 0), 0)
const isWhole = rows.every(([, usd]) => usd !== undefined)
for (const [what, usd] of rows) line(what, usd)
line('idle, an hour', idle, isWhole ? `about ${Math.round(idle * hoursOfMonth)} USD a month` : 'and what is not known')
const most = Number(settings.pMaxWorkers)
line(
  `each worker with disk and address, ${workerType}`,
  worker,
  worker === undefined ? '' : `all ${most}: ${(most * worker).toFixed(2)}; Spot costs less`,
)
process.stdout.write('  Besides: traffic, stored payloads and logs, by use. Before taxes.\n')
if (isFromTable)
  process.stdout.write('  ~ from the table of this script (us-east-1, January 2025): the price list has not told it.\n')

/** USD an hour; undefined when nobody knows. */
function priceOf(type) {
  const listed = readList(type)
  if (listed !== undefined) return listed
  isFromTable = true
  return table[type]
}

function readList(type) {
  const file = join(folder, `${type}.json`)
  if (!existsSync(file)) return undefined
  try {
    const { PriceList = [] } = JSON.parse(readFileSync(file, 'utf8'))
    const prices = PriceList.flatMap(entry => Object.values(JSON.parse(entry).terms?.OnDemand ?? {}))
      .flatMap(term => Object.values(term.priceDimensions ?? {}))
      .map(({ pricePerUnit }) => Number(pricePerUnit?.USD))
      .filter(usd => usd > 0)
    return prices.length === 0 ? undefined : Math.min(...prices)
  } catch {
    return undefined
  }
}

function times(count, usd) {
  return usd === undefined ? undefined : count * usd
}

function line(what, usd, remark = '') {
  const type = /[a-z0-9]+\.[a-z0-9.]+$/.exec(what)?.[0]
  const mark = type !== undefined && readList(type) === undefined && usd !== undefined ? '~' : ' '
  const text = usd === undefined ? 'not known' : usd.toFixed(4)
  process.stdout.write(`${`  ${what.padEnd(52)}${mark}${text.padStart(9)}  ${remark}`.trimEnd()}\n`)
}
