/** DescribeSpotPriceHistory and the Pricing service's GetProducts, answered from the prices of the tests. */
import { type Params, structures, values } from '../query.ts'
import { jsonReply, Refusal, type Reply, xmlReply } from '../reply.ts'
import { ec2Reply } from '../xml.ts'
import type { Prices } from './prices.ts'

/** The price now of each type and zone that was asked for, a page at a time; older prices are not kept. */
export function spotPriceHistory(params: Params, region: string, prices: Prices): Reply {
  const filters = new Map(structures(params, 'Filter').map(filter => [filter.Name ?? '', values(filter, 'Value')]))
  const asked = (list: string[], filter: string): string[] => [...list, ...(filters.get(filter) ?? [])]
  const types = asked(values(params, 'InstanceType'), 'instance-type')
  const zones = asked([params.AvailabilityZone ?? ''].filter(Boolean), 'availability-zone')
  const products = asked(values(params, 'ProductDescription'), 'product-description')
  if (products.length > 0 && !products.some(product => product.startsWith('Linux/UNIX'))) return page([], params)
  const rows = (types.length > 0 ? types : prices.types().map(({ type }) => type)).flatMap(type =>
    (zones.length > 0 ? zones : prices.zonesOf(region)).flatMap(zone => {
      const usd = prices.priceOf({ type, zone, market: 'spot' })
      return usd === undefined ? [] : [{ type, zone, usd }]
    }),
  )
  return page(rows, params)
}

function page(rows: { type: string; zone: string; usd: number }[], params: Params): Reply {
  const from = Number(params.NextToken ?? 0)
  const to = from + Number(params.MaxResults ?? 1000)
  const timestamp = new Date().toISOString()
  const body = ec2Reply('DescribeSpotPriceHistory', {
    spotPriceHistorySet: rows.slice(from, to).map(({ type, zone, usd }) => ({
      instanceType: type,
      productDescription: 'Linux/UNIX',
      spotPrice: usd.toFixed(6),
      timestamp,
      availabilityZone: zone,
    })),
    // EC2 ends with an empty token, not without one.
    nextToken: to < rows.length ? String(to) : '',
  })
  return xmlReply(body)
}

interface GetProductsRequest {
  readonly ServiceCode?: string
  readonly Filters?: readonly { readonly Type: string; readonly Field: string; readonly Value: string }[]
  readonly NextToken?: string
  readonly MaxResults?: number
}

/** On-Demand prices of Linux instances. Each entry of PriceList is JSON in a string, as the service has it. */
export function getProducts(request: GetProductsRequest, region: string, prices: Prices): Reply {
  if (request.ServiceCode !== 'AmazonEC2') throw new Refusal('NotFoundException', 'Only AmazonEC2 has prices here.')
  const regionFilter = request.Filters?.find(({ Field }) => Field === 'regionCode')?.Value
  const filters = request.Filters ?? []
  const products = prices
    .types()
    .map(({ type, vcpu, memoryGib }) => ({
      usd: prices.priceOf({ type, zone: '*', market: 'on-demand' }),
      sku: Buffer.from(type).toString('hex').toUpperCase(),
      attributes: {
        instanceType: type,
        regionCode: regionFilter ?? region,
        location: 'US East (N. Virginia)',
        locationType: 'AWS Region',
        operatingSystem: 'Linux',
        preInstalledSw: 'NA',
        tenancy: 'Shared',
        capacitystatus: 'Used',
        marketoption: 'OnDemand',
        licenseModel: 'No License required',
        vcpu: String(vcpu),
        memory: `${memoryGib} GiB`,
      } as Readonly<Record<string, string>>,
    }))
    .filter(({ usd }) => usd !== undefined)
    .filter(({ attributes }) => filters.every(({ Field, Value }) => attributes[Field] === Value))
  const from = Number(request.NextToken ?? 0)
  const to = from + (request.MaxResults ?? 100)
  return jsonReply({
    FormatVersion: 'aws_v1',
    PriceList: products.slice(from, to).map(product => JSON.stringify(offer(product))),
    ...(to < products.length && { NextToken: String(to) }),
  })
}

function offer({ usd, sku, attributes }: { usd: number | undefined; sku: string; attributes: unknown }) {
  const term = `${sku}.JRTCKXETXF`
  const dimension = `${term}.6YS6EN2CT7`
  return {
    product: { productFamily: 'Compute Instance', sku, attributes },
    serviceCode: 'AmazonEC2',
    terms: {
      OnDemand: {
        [term]: {
          sku,
          offerTermCode: 'JRTCKXETXF',
          effectiveDate: '2026-01-01T00:00:00Z',
          termAttributes: {},
          priceDimensions: {
            [dimension]: {
              rateCode: dimension,
              unit: 'Hrs',
              beginRange: '0',
              endRange: 'Inf',
              appliesTo: [],
              pricePerUnit: { USD: usd?.toFixed(10) },
            },
          },
        },
      },
    },
    version: '20260101000000',
    publicationDate: '2026-01-01T00:00:00Z',
  }
}
