/** The catalogue: built-in types and those of a user's file; and the check of payloads against a handler's schema. */
import { mkdtempSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { Type } from 'typebox'
import { StartupError } from '../../src/errors.ts'
import { builtInHandlers, loadHandlers } from '../../src/handlers/catalogue.ts'
import { compilePayloadCheck } from '../../src/handlers/payload-schema.ts'

const folder = mkdtempSync(join(tmpdir(), 'muster-handlers-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

let files = 0
const write = (text: string, extension = 'mjs'): string => {
  files += 1
  const path = join(folder, `handlers-${files}.${extension}`)
  writeFileSync(path, text)
  return path
}

const builtInTypes = ['countToThree', 'noop', 'primes', 'sha512', 'sleep']
const typesOf = async (file?: string): Promise<string[]> => [...(await loadHandlers(file)).keys()].sort()
const addedTypes = async (text: string, extension?: string): Promise<string[]> =>
  (await typesOf(write(text, extension))).filter(type => !builtInTypes.includes(type))

t.test('without a file: the built-in types, each with a usable schema', async t => {
  t.same(await typesOf(), builtInTypes)
  t.same(await typesOf(''), builtInTypes)
  for (const handler of builtInHandlers) t.doesNotThrow(() => compilePayloadCheck(handler), handler.type)
})

t.test('a file imports from "muster" wherever it lies', async t => {
  const text = `import { defineHandler, FinalError } from 'muster'
    export const mine = defineHandler({ type: 'mine', handle: () => { throw new FinalError('no') } })`
  t.same(await addedTypes(text), ['mine'])
})

t.test('handlers count by name, as default, as a default array, and from CommonJS, each once', async t => {
  t.same(
    await addedTypes(
      `export const a = { type: 'a', handle: () => 1 }; export const limit = 3; export const Schema = { type: 'object' }`,
    ),
    ['a'],
  )
  t.same(await addedTypes(`const a = { type: 'a', handle: () => 1 }; export default a; export { a, a as again }`), [
    'a',
  ])
  t.same(
    await addedTypes(
      `export const c = { type: 'c', handle() {} }; export default [{ type: 'a', handle() {} }, { type: 'b', handle() {} }, c]`,
    ),
    ['a', 'b', 'c'],
  )
  t.same(
    await addedTypes(
      `const made = () => ({ a: { type: 'a', handle() {} }, helper: 7 }); module.exports = made()`,
      'cjs',
    ),
    ['a'],
  )
  t.same(await addedTypes(`exports.a = { type: 'a', handle() {} }; exports.b = { type: 'b', handle() {} }`, 'cjs'), [
    'a',
    'b',
  ])
  t.same(await addedTypes(`class Greeter { type = 'greet'; handle() {} }; export const greeter = new Greeter()`), [
    'greet',
  ])
})

t.test('a loaded handler runs', async t => {
  const handlers = await loadHandlers(
    write(`export const double = { type: 'double', payload: { type: 'integer' }, handle: n => 2 * n }`),
  )
  t.equal(await handlers.get('double')?.handle(21, {} as never), 42)
})

t.test('what is wrong with a file is said, with its name and what to do', async t => {
  const cases: [name: string, text: string, message: RegExp][] = [
    ['no handler', `export const limit = 3`, /exports no handler\. Write/],
    ['only a schema', `export const Payload = { type: 'object' }`, /exports no handler/],
    ['an empty array', `export default []`, /exports no handler/],
    ['a syntax error', `export const = 1`, /cannot be loaded \([\s\S]*SyntaxError/],
    [
      'an error of its own',
      `throw new Error('no database here')`,
      /cannot be loaded \(\/.*:1:7: Error: no database here\)/,
    ],
    ['a missing import', `import 'muster-handlers-of-nobody'`, /cannot be loaded \(.*muster-handlers-of-nobody/],
    [
      'a slip in a key',
      `import { defineHandler } from 'muster'\nexport const a = defineHandler({ typ: 'x', handle() {} })`,
      /cannot be loaded \(\/.*handlers\S*:2:18: TypeError: A handler needs a "type", .*this one has: typ, handle\)/,
    ],
    ['no handle', `export const a = { type: 'a', payload: {} }`, /the export "a" \("a"\) needs a function "handle/],
    ['handle is no function', `export const a = { type: 'a', handle: 1 }`, /needs a function "handle/],
    ['no type', `export const a = { handle() {} }`, /needs a type/],
    ['a bad type', `export const a = { type: '9 lives', handle() {} }`, /needs a type/],
    ['a stranger in the array', `export default [{ type: 'a', handle() {} }, 'b']`, /default\[1\] is not a handler/],
    ['an object in the array', `export default [{ type: 'a', handle() {} }, {}]`, /default\[1\] needs a type/],
    [
      'payload is no schema',
      `export const a = { type: 'a', payload: 'x', handle() {} }`,
      /needs a JSON schema as its payload/,
    ],
    [
      'a broken schema',
      `export const a = { type: 'a', payload: { type: 'nope' }, handle() {} }`,
      /payload schema of the handler "a" is not valid/,
    ],
    ['a built-in type', `export const a = { type: 'sha512', handle() {} }`, /type "sha512", which is built in\. Give/],
    [
      'a doubled type',
      `export const a = { type: 'x', handle() {} }; export const b = { type: 'x', handle() {} }`,
      /type "x", which is defined twice/,
    ],
  ]
  for (const [name, text, message] of cases) {
    const path = write(text)
    const error = await loadHandlers(path).then(
      () => undefined,
      error => error,
    )
    t.ok(error instanceof StartupError, `${name}: a StartupError`)
    t.match(error?.message, message, name)
    t.ok(error?.message.startsWith(`${path}: `), `${name}: names the file`)
  }
  for (const path of [join(folder, 'none.mjs'), folder]) {
    await t.rejects(loadHandlers(path), {
      name: 'StartupError',
      message: `${path}: there is no such file. Name the JavaScript file that exports your handlers.`,
    })
  }
})

t.test('a payload check says what is wrong in a sentence', async t => {
  const schema = Type.Object(
    {
      ms: Type.Integer({ minimum: 0, maximum: 5 }),
      mail: Type.Optional(Type.String({ format: 'email' })),
      size: Type.Optional(Type.Union([Type.Literal('small'), Type.Literal('large')])),
      colour: Type.Optional(Type.Enum(['red', 'blue'])),
      pair: Type.Optional(Type.Tuple([Type.String(), Type.Number()])),
      either: Type.Optional(Type.Union([Type.Object({ a: Type.String() }), Type.String()])),
    },
    { additionalProperties: false },
  )
  // As it is known elsewhere: gone through JSON.
  const check = compilePayloadCheck({ type: 'x', payload: JSON.parse(JSON.stringify(schema)) })
  const sentence = (fault: string) => `The payload does not fit the type "x": ${fault}.`
  for (const right of [
    { ms: 0 },
    { ms: 5, mail: 'a@b.org', size: 'small', colour: 'red', pair: ['a', 1] },
    { ms: 1, either: { a: '' } },
    { ms: 1, either: '' },
  ]) {
    t.equal(check(right), undefined, JSON.stringify(right))
  }
  const wrong: [payload: unknown, fault: string][] = [
    [null, 'payload must be object'],
    [undefined, 'payload must be object'],
    [[], 'payload must be object'],
    [{}, 'payload must have the property "ms"'],
    [{ ms: '1' }, 'payload.ms must be integer'],
    [{ ms: 1.5 }, 'payload.ms must be integer'],
    [{ ms: -1 }, 'payload.ms must be >= 0'],
    [{ ms: 6 }, 'payload.ms must be <= 5'],
    [{ ms: 1, MS: 1 }, 'payload must not have the property "MS"'],
    [{ ms: 1, mail: 'nobody' }, 'payload.mail must match format "email"'],
    [{ ms: 1, size: 'medium' }, 'payload.size must be "small", or payload.size must be "large"'],
    [{ ms: 1, colour: 'green' }, 'payload.colour must be one of "red", "blue"'],
    [{ ms: 1, pair: ['a', 'b'] }, 'payload.pair.1 must be number'],
    [{ ms: 1, either: { a: 1 } }, 'payload.either.a must be string, or payload.either must be string'],
  ]
  for (const [payload, fault] of wrong) t.equal(check(payload), sentence(fault), JSON.stringify(payload))
  const one = compilePayloadCheck({ type: 'x', payload: { oneOf: [{ type: 'number' }, { minimum: 3 }] } })
  t.equal(one(5), sentence('payload must match exactly one schema in oneOf'))
  t.equal(check(Buffer.from('{"ms":1}')), 'The type "x" takes a JSON payload, not bytes.')
  t.ok(String(check({ ms: 1, ['k'.repeat(100_000)]: 1 })).length < 1000, 'a long name does not make a long sentence')
  const payload = { ms: '3' }
  check(payload)
  t.same(payload, { ms: '3' }, 'a check changes nothing')
})

t.test('a payload check: no schema, 2020-12, one $id twice, a broken schema', async t => {
  t.equal(compilePayloadCheck({ type: 'free' })(Buffer.from('x')), undefined)
  const tuple = {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    $id: 'https://example.org/tuple',
    prefixItems: [{ type: 'string' }],
    items: false,
  }
  const checks = [
    compilePayloadCheck({ type: 'a', payload: tuple }),
    compilePayloadCheck({ type: 'b', payload: tuple }),
  ]
  for (const check of checks) {
    t.equal(check(['x']), undefined)
    t.match(check([1]), /payload\.0 must be string/)
  }
  t.throws(() => compilePayloadCheck({ type: 'bad', payload: { minimum: 'a' } }), {
    name: 'TypeError',
    message: /the handler "bad" is not valid/,
  })
  t.throws(() => compilePayloadCheck({ type: 'bad', payload: { $async: true } }), /"\$async" is not supported/)
})
