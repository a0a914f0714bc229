/** The namespace of the metrics in CloudWatch: '' or a name that CloudWatch takes. */

interface MetricsSettings {
  readonly cloudwatchNamespace: string
  readonly awsRegion: string
}

/** @throws Error whose message completes "MUSTER_CLOUDWATCH_NAMESPACE …" */
export function cloudwatchNamespace(text: string): string {
  if (text !== '' && (!/^[A-Za-z0-9._/#-]{1,255}$/.test(text) || /^AWS\//i.test(text)))
    throw new Error('must be 1 to 255 of A-Z, a-z, 0-9 and . _ / # -, and not begin with AWS/')
  return text
}

/** @returns sentences that say what to mend */
export function faultsOfMetrics({ cloudwatchNamespace, awsRegion }: MetricsSettings): string[] {
  return cloudwatchNamespace !== '' && awsRegion === ''
    ? ['AWS_REGION must be set with MUSTER_CLOUDWATCH_NAMESPACE: where the metrics go']
    : []
}
