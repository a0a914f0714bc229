/** Writes what is generated from the code: openapi/openapi.yaml from the built routes, docs/errors.md from the catalogue. */
import { writeFileSync } from 'node:fs'
import { openapiDocument } from '../dist/api/openapi-document.js'
import { errorsPage } from '../dist/errors.js'

writeFileSync(new URL('../openapi/openapi.yaml', import.meta.url), await openapiDocument())
writeFileSync(new URL('../docs/errors.md', import.meta.url), errorsPage())
