// Node-RED without its editor, for flow.json.
module.exports = {
  uiHost: "127.0.0.1",
  uiPort: Number(process.env.UI_PORT),
  httpAdminRoot: false,
  disableEditor: true,
  credentialSecret: false,
  functionExternalModules: true,
  diagnostics: { enabled: false, ui: false },
  runtimeState: { enabled: false, ui: false },
  logging: { console: { level: "info", metrics: false, audit: false } },
};
