/** Handlers in every form become one module; what is wrong with them is said with its place. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t from 'tap'
import { bundleHandlers } from '../../src/handlers/bundle-handlers.ts'
import { describeBundle } from '../../src/worker/slots/load-bundle.ts'

const folder = await mkdtemp(join(tmpdir(), 'muster-bundle-handlers-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

async function write(name: string, text: string): Promise<string> {
  const path = join(folder, name)
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
  return path
}

async function typesOf(path: string): Promise<string[]> {
  const types = (await describeBundle(await bundleHandlers(path), path)).map(({ type }) => type)
  return types.filter(type => !['countToThree', 'noop', 'primes', 'sha512', 'sleep'].includes(type))
}

const faultOf = async (path: string): Promise<string> =>
  await typesOf(path).then(
    types => `no fault: ${types.join()}`,
    (error: Error) => `${error.name}: ${error.message}`,
  )

await write('node_modules/esm-words/package.json', '{"name":"esm-words","type":"module","exports":"./i.js"}')
await write('node_modules/esm-words/i.js', 'export const word = "esm"')
await write('node_modules/cjs-words/package.json', '{"name":"cjs-words","main":"i.js"}')
await write('node_modules/cjs-words/i.js', 'const p = require("path"); exports.word = p.basename(__filename) && "cjs"')

t.test('TypeScript, ESM and CommonJS, with relative imports and packages', async t => {
  await write('lib/name.ts', 'export enum Name { own = "relative" }')
  const ts = await write(
    'a.ts',
    `import { defineHandler } from 'muster'
    import { word as one } from 'esm-words'
    import { word as two } from 'cjs-words'
    import { Name } from './lib/name'
    const __dirname: string = import.meta.dirname ?? 'mine'
    export const a = defineHandler({ type: [Name.own, one, two].join('.'), handle: () => __dirname })`,
  )
  t.same(await typesOf(ts), ['relative.esm.cjs'])
  const mjs = await write(
    'b.mjs',
    `import { defineHandler } from '@muster-jobs/muster'
    export default defineHandler({ type: 'b', handle() {} })`,
  )
  t.same(await typesOf(mjs), ['b'])
  for (const name of ['c.cjs', 'c.js']) {
    const cjs = await write(
      name,
      `const { defineHandler } = require('muster'); const { word } = require('cjs-words'); const { join } = require('node:path')
      module.exports = { c: defineHandler({ type: 'c.' + word + typeof join, handle() {} }) }`,
    )
    t.same(await typesOf(cjs), ['c.cjsfunction'], name)
  }
})

t.test('the same files are the same version wherever they lie; a bundle is taken as it is', async t => {
  const text = `import { x } from './x.mjs'; export const a = { type: x, handle() {} }`
  const [one, two] = await Promise.all([write('one/h.mjs', text), write('deep/two/h.mjs', text)])
  await write('one/x.mjs', 'export const x = "x"')
  await write('deep/two/x.mjs', 'export const x = "x"')
  const bundle = await bundleHandlers(one)
  t.equal((await bundleHandlers(two)).digest, bundle.digest)
  const again = await write('bundle.mjs', bundle.code.toString())
  t.equal((await bundleHandlers(again)).digest, bundle.digest)
  await write('one/x.mjs', 'export const x = "y"')
  t.not((await bundleHandlers(one)).digest, bundle.digest)
})

t.test('a fault is told with file, line and column', async t => {
  const syntax = await write('syntax.ts', 'export const ok = 1\nexport const = 2\n')
  t.match(await faultOf(syntax), `${syntax}:2:14: `)
  const missing = await write('missing.mjs', "\nimport 'package-of-nobody'\n")
  t.match(await faultOf(missing), `${missing}:2:8: Could not resolve "package-of-nobody"`)
  await write('addon.node', '')
  const addon = await write('addon.cjs', "require('./addon.node')")
  t.match(await faultOf(addon), /addon\.cjs:1:9: "\.\/addon\.node" is a native addon, which does not travel/)
  await write('thrower.ts', 'type A = 1\n\nexport function boom(): never {\n  throw new Error("no database here")\n}\n')
  const throwing = await write('throwing.ts', "import { boom } from './thrower.ts'\nexport const a = boom()\n")
  t.match(await faultOf(throwing), `${join(folder, 'thrower.ts')}:4:9: Error: no database here`)
  t.match(await faultOf(join(folder, 'none.ts')), /none\.ts: there is no such file/)
})
