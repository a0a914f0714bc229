/**
 * Writes what is generated from the code: openapi/openapi.yaml from the built routes, docs/errors.md from the catalogue,
 * docs/settings.md from the settings, and the table in docs/access.md from the roles of the routes.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { routeTable } from '../dist/access/roles.js'
import { openapiDocument } from '../dist/api/docs/openapi-document.js'
import { errorsPage } from '../dist/errors.js'
import { settingsPage } from '../dist/settings/settings-page.js'

writeFileSync(new URL('../openapi/openapi.yaml', import.meta.url), await openapiDocument())
writeFileSync(new URL('../docs/errors.md', import.meta.url), errorsPage())
writeFileSync(new URL('../docs/settings.md', import.meta.url), settingsPage())

const access = new URL('../docs/access.md', import.meta.url)
const page = readFileSync(access, 'utf8')
const from = page.indexOf('\n', page.indexOf('<!-- routes')) + 1
writeFileSync(access, `${page.slice(0, from)}${routeTable()}\n${page.slice(page.indexOf('<!-- /routes'))}`)
