# A Rack app for puma: says which worker answers, and sends a body back.
run lambda { |request|
  sleep 0.02 while request['PATH_INFO'] == '/slow' && !File.exist?(ENV.fetch('GO_ON'))
  body = request['REQUEST_METHOD'] == 'POST' ? request['rack.input'].read : "#{Process.pid}\n"
  fields = { 'content-length' => body.bytesize.to_s, 'x-version' => ENV.fetch('PORTOK_RELEASE') }
  [200, fields, [body]]
}
