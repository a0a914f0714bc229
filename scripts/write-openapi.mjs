/** Writes openapi/openapi.yaml from the built routes. */
import { writeFileSync } from 'node:fs'
import { openapiDocument } from '../dist/api/openapi-document.js'

writeFileSync(new URL('../openapi/openapi.yaml', import.meta.url), await openapiDocument())
