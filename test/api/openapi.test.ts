import { readFile } from 'node:fs/promises'
import { Validator } from '@seriousme/openapi-schema-validator'
import t from 'tap'
import { parse } from 'yaml'
import { openapiDocument } from '../../src/api/docs/openapi-document.ts'
import { operationDocs } from '../../src/api/docs/operation-docs.ts'
import { catalogue, errorsPage } from '../../src/errors.ts'
import { startTestApi } from '../support/api.ts'

const fileOf = (path: string): URL => new URL(`../../${path}`, import.meta.url)

t.test('openapi/openapi.yaml is what the routes say; if not, run "npm run openapi"', async t => {
  const [generated, committed] = await Promise.all([
    openapiDocument(),
    readFile(fileOf('openapi/openapi.yaml'), 'utf8'),
  ])
  t.equal(committed, generated)
})

t.test('it is valid OpenAPI 3.1, and complete', async t => {
  const document = parse(await openapiDocument())
  t.match(await new Validator().validate(structuredClone(document)), { valid: true })
  t.match(document.openapi, /^3\.1/)
  const operations = Object.entries<Record<string, Record<string, unknown>>>(document.paths).flatMap(
    ([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  )
  for (const { path, method, operation } of operations) {
    t.ok(operation.operationId && operation.summary, `${method} ${path} has a name and a summary`)
    t.ok(operation.description, `${method} ${path} is described`)
    const [sample] = (operation['x-codeSamples'] ?? []) as { source: string }[]
    const [, called = ''] = /"\$MUSTER([^"?]*)/.exec(sample?.source ?? '') ?? []
    const pattern = new RegExp(`^${path.replace(/[.]/g, '\\.').replace(/\{\w+\}/g, '[^/]+')}$`)
    t.match(called, pattern, `${method} ${path} has an example that calls it`)
    if (method !== 'get') t.match(sample?.source, `-X ${method.toUpperCase()} `)
  }
  const names = new Set(operations.map(({ operation }) => operation.operationId))
  for (const name of Object.keys(operationDocs)) t.ok(names.has(name), `${name} is an operation`)
  t.strictSame(operations.length, new Set(operations.map(({ operation }) => operation.operationId)).size)
  t.strictSame(Object.keys(document.paths['/enqueue'].put.requestBody.content).length, 4)
  for (const path of [
    '/pullCompleted',
    '/status',
    '/jobs/{workId}',
    '/workers/claim',
    '/fleet',
    '/queues/{queue}/drain',
  ]) {
    t.ok(document.paths[path], path)
  }
})

t.test('docs/errors.md is what the catalogue says; if not, run "npm run openapi"', async t => {
  t.equal(await readFile(fileOf('docs/errors.md'), 'utf8'), errorsPage())
  for (const code of Object.keys(catalogue)) t.match(errorsPage(), `<a id="${code}"></a>`)
})

t.test('/docs/api shows the API without the internet', async t => {
  const api = await startTestApi(t)
  const page = await api.call('GET', '/docs/api')
  t.equal(page.status, 200)
  const html = page.body.toString()
  t.match(html, 'scalar.js', 'it is the reference, not a document of that name')
  const outside = [...html.matchAll(/(?:src|href)="(https?:\/\/[^"]+)"/g)].map(match => match[1])
  t.strictSame(outside, [], 'nothing is loaded from elsewhere')
  const json = await api.call('GET', '/docs/openapi.json')
  t.equal(json.status, 200)
  t.ok(json.body.paths['/enqueue'])
  const { body } = await api.call('PUT', '/enqueue')
  const [path] = body.type.split('#')
  t.match((await api.call('GET', path)).body.toString(), body.code, 'the type of a problem leads to its explanation')
})
