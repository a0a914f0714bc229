import { readFile } from 'node:fs/promises'
import t from 'tap'
import { fields, variableName } from '../../src/settings/settings.ts'
import { defaultsInWords, settingsPage } from '../../src/settings/settings-page.ts'

t.test('docs/settings.md is what the settings say; if not, run "npm run openapi"', async t => {
  t.equal(await readFile(new URL('../../docs/settings.md', import.meta.url), 'utf8'), settingsPage())
  for (const key of Object.keys(fields)) t.ok(settingsPage().includes(`<a id="${variableName(key)}"></a>`), key)
})

t.test('a default that depends on something else is in words', async t => {
  const depends = Object.entries(fields).flatMap(([key, { fallback }]) => (typeof fallback === 'function' ? [key] : []))
  t.strictSame(Object.keys(defaultsInWords).sort(), depends.sort())
})
